import { tidy } from '../scope.js';
import { dtypeTraits } from '../tensor/dtype.js';
import type { Tensor } from '../tensor/tensor.js';

/** Bytes handed over at once. A view of more than 4 GiB cannot be made in every supported version of Node. */
const MAX_CHUNK_BYTES = 1 << 30;

/**
 * Hands over the elements of a tensor, row-major, as bytes in pieces. Of a contiguous CPU tensor they are its memory, so that
 * writing into them changes it; of any other they are a copy.
 *
 * @param visit receives each piece and its place in the whole
 */
export function eachChunk(
  tensor: Tensor,
  visit: (bytes: Uint8Array, offset: number) => void,
  maxBytes = MAX_CHUNK_BYTES,
): void {
  const width = dtypeTraits(tensor.dtype).bytes;
  const count = tensor.numel();
  const perChunk = Math.floor(maxBytes / width);
  tidy(() => {
    const isWhole = count <= perChunk;
    const flat = isWhole ? tensor : tensor.detach().contiguous().reshape([count]);
    for (let first = 0; first < count; first += perChunk) {
      tidy(() => {
        const part = isWhole ? flat : flat.narrow(0, first, Math.min(perChunk, count - first));
        const data = part.data();
        visit(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), first * width);
      });
    }
  });
}
