import { closeSync, fstatSync, openSync } from 'node:fs';
import { FmoeError } from '../errors.js';
import type { DType } from '../tensor/dtype.js';
import { empty } from '../tensor/factories.js';
import type { Tensor } from '../tensor/tensor.js';
import { fileError, withFileErrors } from './file-errors.js';
import { readExactly } from './read-exactly.js';
import { fromStoredDType, type StoredDType } from './safetensors-dtypes.js';
import { LENGTH_BYTES, parseHeader, parseHeaderLength, type TensorEntry } from './safetensors-header.js';
import { eachChunk } from './tensor-bytes.js';

const OP = 'safetensors';

/** What is known of a tensor in a file without reading it. */
export interface TensorInfo {
  /** The tensor's dtype, or undefined when it exists in the format only (`storedDType` names it). */
  dtype: DType | undefined;
  storedDType: StoredDType;
  shape: readonly number[];
  /** Size of the data in bytes. */
  byteLength: number;
}

/**
 * A safetensors file open for reading: the header is read and checked at once, each tensor when it is asked for, straight
 * into its own memory.
 *
 * @example
 * ```ts
 * const file = new SafetensorsFile('model.safetensors');
 * const weight = file.tensor('encoder.weight');
 * file.close();
 * ```
 */
export class SafetensorsFile {
  readonly path: string;
  /** The strings stored under `__metadata__`. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly #entries: ReadonlyMap<string, TensorEntry>;
  readonly #dataStart: number;
  #file: number | undefined;

  /**
   * Opens the file and checks its header.
   *
   * @throws FmoeError ERR_FILE when it cannot be read, is truncated, or is no valid safetensors file
   */
  constructor(path: string) {
    this.path = path;
    this.#file = withFileErrors(OP, path, 'open it', () => openSync(path, 'r'));
    try {
      const fileBytes = withFileErrors(OP, path, 'read it', () => fstatSync(this.#file!).size);
      const prefix = new Uint8Array(Math.min(LENGTH_BYTES, fileBytes));
      this.#read(prefix, 0);
      const headerBytes = parseHeaderLength(prefix, fileBytes, OP, path);
      const header = new Uint8Array(headerBytes);
      this.#read(header, LENGTH_BYTES);
      this.#dataStart = LENGTH_BYTES + headerBytes;
      const { entries, metadata } = parseHeader(header, fileBytes - this.#dataStart, OP, path);
      this.#entries = entries;
      this.metadata = metadata;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Names of all tensors, in the order of the data. */
  names(): string[] {
    return [...this.#entries.keys()];
  }

  has(name: string): boolean {
    return this.#entries.has(name);
  }

  /**
   * Dtype, shape and size of a tensor, without reading it.
   *
   * @throws FmoeError ERR_ARGUMENT when the file has no tensor of that name
   */
  info(name: string): TensorInfo {
    const { storedDType, shape, start, end } = this.#entry(name);
    return { dtype: fromStoredDType(storedDType), storedDType, shape, byteLength: end - start };
  }

  /**
   * Reads one tensor.
   *
   * @param name as in {@link names}
   * @param options.device where the tensor shall live; default `cpu`
   * @returns a new tensor of the stored dtype and shape, owned by the current scope
   * @throws FmoeError ERR_ARGUMENT for an unknown name, ERR_DTYPE for a dtype that tensors do not have here, ERR_FILE when
   *   the data cannot be read or a bool is neither 0 nor 1
   */
  tensor(name: string, options: { device?: string } = {}): Tensor {
    const { device = 'cpu' } = options;
    const { storedDType, shape, start } = this.#entry(name);
    const dtype = fromStoredDType(storedDType);
    if (dtype === undefined) {
      throw new FmoeError(
        'ERR_DTYPE',
        `${OP}: ${this.path}: tensor '${name}' has dtype ${storedDType}, which is not supported. Convert it to another dtype before saving.`,
        { op: OP, argument: 'name' },
      );
    }
    const tensor = empty([...shape], { dtype });
    try {
      this.#fill(tensor, name, this.#dataStart + start);
      if (device === 'cpu') return tensor;
      const moved = tensor.to(device);
      tensor.dispose();
      return moved;
    } catch (error) {
      tensor.dispose();
      throw error;
    }
  }

  /** Closes the file. Tensors that were read stay valid. */
  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #fill(tensor: Tensor, name: string, position: number): void {
    const isBool = tensor.dtype === 'bool';
    eachChunk(tensor, (bytes, offset) => {
      this.#read(bytes, position + offset);
      if (isBool && bytes.some((byte) => byte > 1)) {
        throw fileError(
          OP,
          this.path,
          `tensor '${name}' of dtype BOOL holds a byte that is neither 0 nor 1.`,
        );
      }
    });
  }

  #entry(name: string): TensorEntry {
    const entry = this.#entries.get(name);
    if (entry) return entry;
    const known = this.names();
    const some = known.slice(0, 5).map((other) => `'${other}'`);
    const list = known.length > 5 ? `${some.join(', ')} and ${known.length - 5} more` : some.join(', ');
    throw new FmoeError(
      'ERR_ARGUMENT',
      `${OP}: ${this.path} has no tensor '${name}'. It has ${known.length === 0 ? 'none' : list}.`,
      { op: OP, argument: 'name' },
    );
  }

  /** Fills `bytes` from the file, in as many calls as it takes. */
  #read(bytes: Uint8Array, position: number): void {
    const file = this.#file;
    if (file === undefined) throw fileError(OP, this.path, 'the file was closed already.');
    readExactly(OP, this.path, file, bytes, position);
  }
}
