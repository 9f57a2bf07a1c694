import { FmoeError } from '../../errors.js';
import { dtypeTraits } from '../../tensor/dtype.js';
import { Tensor } from '../../tensor/tensor.js';
import { type AtomicFileOptions, writeFileAtomic } from '../atomic-file.js';
import { eachChunk } from '../tensor-bytes.js';
import type { TorchValue } from './load.js';
import { PickleWriter } from './pickle-writer.js';
import { ZipWriter } from './zip-writer.js';

const OP = 'saveTorchFile';

/** What can be saved: as {@link TorchValue}, but nothing needs to be mutable. */
export type SavableValue =
  | Tensor
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly SavableValue[]
  | { readonly [key: string]: SavableValue };

/**
 * Writes tensors, and numbers, strings, lists and objects of them, to a file that PyTorch's `torch.load` reads, with
 * `weights_only` too. Equal content gives equal bytes. By default the file appears whole or not at all.
 *
 * @param path the file to create or replace
 * @param value tensors of any shape, dtype, layout and device; objects become dictionaries, whole numbers integers
 * @param options whether to write through a temporary file and wait for the disk
 * @throws FmoeError ERR_ARGUMENT for a value that is none of these or contains itself; ERR_DISPOSED for a disposed tensor;
 *   ERR_FILE when the file cannot be written
 */
export function saveTorchFile(path: string, value: SavableValue, options: AtomicFileOptions = {}): void {
  const tensors: Tensor[] = [];
  const pickle = describe(value, tensors);
  writeFileAtomic(path, (file) => writeArchive(new ZipWriter(file), pickle, tensors), options);
}

/** @internal The archive around a pickle and the tensors that it names by number. */
export function writeArchive(zip: ZipWriter, pickle: Buffer, tensors: readonly Tensor[]): void {
  zip.addBytes('archive/data.pkl', pickle);
  zip.addBytes('archive/byteorder', Buffer.from('little'));
  for (const [key, tensor] of tensors.entries()) {
    const bytes = tensor.numel() * dtypeTraits(tensor.dtype).bytes;
    zip.add(`archive/data/${key}`, bytes, (piece) => eachChunk(tensor, piece));
  }
  zip.addBytes('archive/version', Buffer.from('3\n'));
  zip.finish();
}

/** @internal The pickle of a value; its tensors, each once, in the order of their numbers. */
export function describe(value: unknown, tensors: Tensor[]): Buffer {
  const writer = new PickleWriter();
  const keys = new Map<Tensor, string>();
  const above = new Set<unknown>();
  const write = (item: unknown): void => {
    if (item === null) writer.none();
    else if (typeof item === 'boolean') writer.boolean(item);
    else if (typeof item === 'string') writer.string(item);
    else if (typeof item === 'bigint' || isWhole(item)) writer.integer(item);
    else if (typeof item === 'number') writer.float(item);
    else if (item instanceof Tensor) writeTensor(item);
    else if (typeof item === 'object') writeContainer(item);
    else throw unsupported(typeof item);
  };
  const writeTensor = (tensor: Tensor): void => {
    if (!keys.has(tensor)) {
      keys.set(tensor, String(tensors.length));
      tensors.push(tensor);
    }
    writer.tensor({ dtype: tensor.dtype, shape: tensor.shape, key: keys.get(tensor) as string });
  };
  const writeContainer = (container: object): void => {
    if (above.has(container)) throw unsupported('a container that contains itself');
    above.add(container);
    if (Array.isArray(container)) writer.list(container, write);
    else if (isPlain(container)) writer.dict(Object.entries(container), write);
    else throw unsupported(`an object of class ${container.constructor?.name}`);
    above.delete(container);
  };
  write(value);
  return writer.finish();
}

/** Negative zero is a float, or its sign would be lost. */
function isWhole(value: unknown): value is number {
  return Number.isSafeInteger(value) && !Object.is(value, -0);
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function unsupported(what: string): FmoeError {
  return new FmoeError(
    'ERR_ARGUMENT',
    `${OP}: the value holds ${what}; tensors, null, booleans, numbers, strings, arrays and plain objects can be saved.`,
    { op: OP, argument: 'value' },
  );
}
