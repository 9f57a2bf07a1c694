import { FmoeError } from '../errors.js';
import { Tensor } from '../tensor/tensor.js';
import { type AtomicFileOptions, writeFileAtomic, writeFully } from './atomic-file.js';
import { toStoredDType } from './safetensors-dtypes.js';
import { compareLayouts, encodeHeader, MAX_HEADER_BYTES } from './safetensors-header.js';
import { SafetensorsFile } from './safetensors-reader.js';
import { eachChunk } from './tensor-bytes.js';

/** The content of a safetensors file. */
export interface SafetensorsContent {
  /** In the order of the data. */
  tensors: Record<string, Tensor>;
  metadata: Record<string, string>;
}

const OP = 'saveSafetensors';

function argumentError(argument: string, problem: string): FmoeError {
  return new FmoeError('ERR_ARGUMENT', `${OP}: ${problem}`, { op: OP, argument });
}

function checkName(name: string): void {
  if (name === '__metadata__') {
    throw argumentError('tensors', "a tensor cannot be called '__metadata__': the format keeps that name.");
  }
  if (Buffer.from(name).toString() !== name) {
    throw argumentError('tensors', `the name ${JSON.stringify(name)} is not valid Unicode.`);
  }
}

/**
 * Writes tensors to a safetensors file. Equal tensors and metadata give equal bytes, whatever the order of the keys; they
 * are the bytes that the format's Python package writes. By default the file appears whole or not at all.
 *
 * @param path the file to create or replace
 * @param tensors tensors of any shape, dtype, layout and device by name
 * @param metadata strings kept in the header
 * @param options whether to write through a temporary file and wait for the disk
 * @throws FmoeError ERR_ARGUMENT for a value that is no tensor, a reserved name or metadata that is not a string;
 *   ERR_DISPOSED for a disposed tensor; ERR_FILE when the file cannot be written
 */
export function saveSafetensors(
  path: string,
  tensors: Readonly<Record<string, Tensor>>,
  metadata: Readonly<Record<string, string>> = {},
  options: AtomicFileOptions = {},
): void {
  for (const [key, value] of Object.entries(metadata)) {
    if (typeof value !== 'string') {
      throw argumentError(
        'metadata',
        `metadata.${key} is ${typeof value}, expected a string. Use JSON.stringify.`,
      );
    }
  }
  const layouts = Object.entries(tensors).map(([name, tensor]) => {
    checkName(name);
    if (!(tensor instanceof Tensor)) throw argumentError('tensors', `'${name}' is not a tensor.`);
    return { name, tensor, shape: tensor.shape, storedDType: toStoredDType(tensor.dtype) };
  });
  layouts.sort(compareLayouts);
  const header = encodeHeader(layouts, metadata);
  if (header.length > MAX_HEADER_BYTES) {
    throw argumentError(
      'metadata',
      `the header would take ${header.length} bytes, ${MAX_HEADER_BYTES} are the most.`,
    );
  }
  writeFileAtomic(
    path,
    (file) => {
      writeFully(file, header);
      for (const { tensor } of layouts) {
        eachChunk(tensor, (bytes) => writeFully(file, bytes));
      }
    },
    options,
  );
}

/**
 * Reads a whole safetensors file. For single tensors of a large file use {@link SafetensorsFile}.
 *
 * @param path the file
 * @param options.device where the tensors shall live; default `cpu`
 * @returns new tensors by name, owned by the current scope, and the metadata
 * @throws FmoeError ERR_FILE when the file is missing, truncated, damaged or of another format; ERR_DTYPE for a dtype that
 *   tensors do not have here. Nothing is left behind then.
 */
export function loadSafetensors(path: string, options: { device?: string } = {}): SafetensorsContent {
  const file = new SafetensorsFile(path);
  const tensors = new Map<string, Tensor>();
  try {
    for (const name of file.names()) tensors.set(name, file.tensor(name, options));
    return { tensors: Object.fromEntries(tensors), metadata: { ...file.metadata } };
  } catch (error) {
    for (const tensor of tensors.values()) tensor.dispose();
    throw error;
  } finally {
    file.close();
  }
}
