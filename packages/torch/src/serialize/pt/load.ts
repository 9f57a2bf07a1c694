import { closeSync, fstatSync, openSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { FmoeError } from '../../errors.js';
import { tidy } from '../../scope.js';
import { type DType, dtypeTraits } from '../../tensor/dtype.js';
import { empty } from '../../tensor/factories.js';
import { Tensor } from '../../tensor/tensor.js';
import { fileError, withFileErrors } from '../file-errors.js';
import { readExactly } from '../read-exactly.js';
import { eachChunk } from '../tensor-bytes.js';
import { type PickleNames, type PickleValue, readPickle } from './pickle-reader.js';
import { storageDType } from './storages.js';
import { findContent, readZipDirectory, type ZipEntry } from './zip-reader.js';

/** What a file of PyTorch holds: tensors, and the plain values and containers around them. */
export type TorchValue =
  | Tensor
  | null
  | boolean
  | number
  | bigint
  | string
  | TorchValue[]
  | { [key: string]: TorchValue };

const OP = 'loadTorchFile';
/** A pickle describes tensors and holds none; one above this is not one of a file of tensors. */
const MAX_PICKLE_BYTES = 1 << 28;

const ORDERED_DICT = 'collections.OrderedDict';
const TENSOR = 'torch._utils._rebuild_tensor_v2';
const PARAMETER = 'torch._utils._rebuild_parameter';
const SIZE = 'torch.Size';
const STORAGE = /^torch\.(\w+Storage)$/;

/**
 * Reads a file that PyTorch's `torch.save` wrote (the zip format, its default since version 1.6): tensors, and numbers,
 * strings, lists and dictionaries of them, such as a state dict or a checkpoint.
 *
 * Nothing in the file is run: a file that holds objects of any other class is refused, or with `skipObjects` has null in their
 * places. Tensors that share memory in the file share it here. Tuples become lists; keys of dictionaries become strings; all tensors are on the CPU unless `device` says
 * otherwise, and none requires a gradient.
 *
 * @param path the file
 * @param options.device where the tensors shall live; default `cpu`
 * @param options.skipObjects read null for objects of other classes, such as the arguments that a training script keeps beside
 *   its model, and leave out entries of dictionaries whose keys are no strings and numbers; default false
 * @returns what was saved; new tensors are owned by the current scope
 * @throws FmoeError ERR_FILE when the file is missing, truncated, damaged, of the format before PyTorch 1.6, or holds anything
 *   but tensors and plain values; ERR_DTYPE for a dtype that tensors do not have here. Nothing is left behind then.
 */
export function loadTorchFile(
  path: string,
  options: { device?: string; skipObjects?: boolean } = {},
): TorchValue {
  const { device = 'cpu', skipObjects = false } = options;
  const file = withFileErrors(OP, path, 'open it', () => openSync(path, 'r'));
  try {
    return tidy(() => new Reader(path, file, device, skipObjects).read()) as TorchValue;
  } finally {
    closeSync(file);
  }
}

class Reader implements PickleNames {
  readonly #path: string;
  readonly #file: number;
  readonly #device: string;
  readonly #skipObjects: boolean;
  readonly #entries: ReadonlyMap<string, ZipEntry>;
  readonly #folder: string;
  readonly #storages = new Map<string, Tensor>();

  constructor(path: string, file: number, device: string, skipObjects: boolean) {
    this.#path = path;
    this.#file = file;
    this.#device = device;
    this.#skipObjects = skipObjects;
    this.#refuseOldFormat();
    const entries = readZipDirectory(OP, path, file);
    const pickle = entries.find(({ name }) => name.endsWith('/data.pkl') && name.split('/').length === 2);
    if (!pickle) throw this.#error('it has no data.pkl: it is no file of torch.save.');
    this.#folder = pickle.name.slice(0, -'data.pkl'.length);
    this.#entries = new Map(entries.map((entry) => [entry.name.slice(this.#folder.length), entry]));
  }

  read(): TorchValue {
    if (this.#entries.has('byteorder') && this.#text('byteorder') !== 'little') {
      throw this.#error('its numbers are big-endian, which is not supported.');
    }
    const entry = this.#entries.get('data.pkl') as ZipEntry;
    if (entry.size > MAX_PICKLE_BYTES) throw this.#error('its data.pkl is too large.');
    let value: PickleValue;
    try {
      value = readPickle(this.#bytes(entry), this);
    } catch (cause) {
      if (cause instanceof FmoeError) throw cause;
      throw this.#error(`${(cause as Error).message}.`, cause);
    }
    return this.#plain(value, new Set());
  }

  // --- what names in the pickle mean ---------------------------------------------------------------------------------

  knows(name: string): boolean {
    return this.#skipObjects || [ORDERED_DICT, TENSOR, PARAMETER, SIZE].includes(name) || STORAGE.test(name);
  }

  call(name: string, args: PickleValue[]): PickleValue {
    if (name === ORDERED_DICT) return new Map();
    if (name === SIZE) return args[0] ?? [];
    if (name === TENSOR) return { constructed: this.#tensor(args) };
    if (name === PARAMETER) return args[0] as PickleValue;
    if (this.#skipObjects) return { constructed: undefined };
    throw new Error('its pickle is damaged');
  }

  persistent(id: PickleValue): PickleValue {
    const [kind, type, key, , count] = Array.isArray(id) ? id : [];
    const name =
      typeof type === 'object' && type !== null && 'name' in type ? STORAGE.exec(type.name)?.[1] : undefined;
    if (kind !== 'storage' || name === undefined || typeof key !== 'string' || !isSize(count)) {
      throw new Error('its pickle is damaged');
    }
    const dtype = storageDType(name);
    if (dtype === undefined) {
      throw new FmoeError(
        'ERR_DTYPE',
        `${OP}: ${this.#path}: it holds a ${name}, a dtype that is not supported.`,
        {
          op: OP,
        },
      );
    }
    return { constructed: this.#storage(key, dtype, count) };
  }

  #storage(key: string, dtype: DType, count: number): Tensor {
    const known = this.#storages.get(key);
    if (known) {
      if (known.dtype !== dtype || known.numel() < count) throw new Error('its pickle is damaged');
      return known;
    }
    const entry = this.#entries.get(`data/${key}`);
    const bytes = count * dtypeTraits(dtype).bytes;
    if (!entry || entry.size < bytes) throw new Error(`the data of tensor ${key} are missing or truncated`);
    const storage = empty([count], { dtype });
    const start = findContent(OP, this.#path, this.#file, entry);
    let crc = 0;
    eachChunk(storage, (part, offset) => {
      readExactly(OP, this.#path, this.#file, part, start + offset);
      crc = crc32(part, crc);
      if (dtype === 'bool' && part.some((byte) => byte > 1)) {
        throw new Error(`bool tensor ${key} holds a byte that is neither 0 nor 1`);
      }
    });
    if (entry.size === bytes && crc !== entry.crc) throw new Error(`the data of tensor ${key} are damaged`);
    const placed = this.#device === 'cpu' ? storage : storage.to(this.#device);
    this.#storages.set(key, placed);
    return placed;
  }

  #tensor([storage, offset, shape, stride]: PickleValue[]): Tensor {
    const memory = tensorIn(storage);
    if (!memory || !isSize(offset) || !isSizes(shape) || !isSizes(stride) || shape.length !== stride.length) {
      throw new Error('its pickle is damaged');
    }
    const isEmpty = shape.some((size) => size === 0);
    const last = shape.reduce((sum, size, at) => sum + (size - 1) * (stride[at] as number), offset);
    if (isEmpty ? offset > memory.numel() : last >= memory.numel()) throw new Error('its pickle is damaged');
    return memory.asStrided(shape, stride, { storageOffset: offset });
  }

  // --- reading -------------------------------------------------------------------------------------------------------

  #plain(value: PickleValue, above: Set<PickleValue>): TorchValue {
    if (typeof value !== 'object' || value === null) return value;
    const tensor = tensorIn(value);
    if (tensor) return tensor;
    if (this.#skipObjects && !Array.isArray(value) && !(value instanceof Map)) return null;
    if (above.has(value)) throw this.#error('it holds a container that contains itself.');
    above.add(value);
    const result = Array.isArray(value)
      ? value.map((item) => this.#plain(item, above))
      : this.#record(value, above);
    above.delete(value);
    return result;
  }

  #record(value: PickleValue, above: Set<PickleValue>): TorchValue {
    if (!(value instanceof Map)) throw this.#error('its pickle is damaged.');
    const entries = [...value].flatMap(([key, item]) => {
      if (['string', 'number', 'boolean', 'bigint'].includes(typeof key)) {
        return [[String(key), this.#plain(item, above)] as const];
      }
      if (this.#skipObjects) return [];
      throw this.#error('it holds a dictionary with keys other than strings and numbers.');
    });
    return Object.fromEntries(entries);
  }

  #bytes(entry: ZipEntry): Buffer {
    const bytes = Buffer.alloc(entry.size);
    readExactly(OP, this.#path, this.#file, bytes, findContent(OP, this.#path, this.#file, entry));
    if (crc32(bytes) !== entry.crc) throw this.#error(`its entry ${entry.name} is damaged.`);
    return bytes;
  }

  #text(name: string): string {
    const entry = this.#entries.get(name) as ZipEntry;
    if (entry.size > 16) throw this.#error(`its entry ${entry.name} is damaged.`);
    return this.#bytes(entry).toString('latin1').trim();
  }

  /** Before the zip format a file began with the pickle of a magic number. */
  #refuseOldFormat(): void {
    const head = Buffer.alloc(Math.min(2, fstatSync(this.#file).size));
    readExactly(OP, this.#path, this.#file, head, 0);
    if (head[0] !== 0x80) return;
    throw this.#error(
      'it is a bare pickle or has the format before PyTorch 1.6. Load it with PyTorch and save it again.',
    );
  }

  #error(problem: string, cause?: unknown): FmoeError {
    return fileError(OP, this.#path, problem, cause);
  }
}

function tensorIn(value: PickleValue | undefined): Tensor | undefined {
  if (typeof value !== 'object' || value === null || !('constructed' in value)) return undefined;
  return value.constructed instanceof Tensor ? value.constructed : undefined;
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every(isSize);
}
