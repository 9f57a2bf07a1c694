// A reader for the part of the pickle format that files of tensors use: numbers, strings, lists, tuples, dictionaries, and a
// fixed set of named constructors. Anything else is an error; nothing in a file can name code to run.

/** A value of a pickle: dictionaries as maps, tuples and lists as arrays. */
export type PickleValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | PickleValue[]
  | Map<PickleValue, PickleValue>
  | Constructed
  | Named;

/** What {@link PickleNames} made: a value, or undefined for an object that is passed over with all that fills it. */
export interface Constructed {
  readonly constructed: unknown;
}

/** A name as it stands on the stack until it is called. */
export interface Named {
  readonly name: string;
}

/** What names in a pickle mean. */
export interface PickleNames {
  /** Whether a name such as `collections.OrderedDict` is known. */
  knows(name: string): boolean;
  /** What calling a known name gives. */
  call(name: string, args: PickleValue[]): PickleValue;
  /** What a persistent id gives. */
  persistent(id: PickleValue): PickleValue;
}

/**
 * Reads a pickle of protocol 2 to 5.
 *
 * @throws Error saying what is damaged or not allowed
 */
export function readPickle(bytes: Buffer, names: PickleNames): PickleValue {
  return new Machine(bytes, names).run();
}

const MARK = Symbol('mark');

class Machine {
  readonly #bytes: Buffer;
  readonly #names: PickleNames;
  readonly #stack: (PickleValue | typeof MARK)[] = [];
  readonly #memo = new Map<number, PickleValue>();
  #at = 0;

  constructor(bytes: Buffer, names: PickleNames) {
    this.#bytes = bytes;
    this.#names = names;
  }

  run(): PickleValue {
    for (;;) {
      const code = this.#byte();
      if (code === 0x2e) return this.#pop(); // STOP
      const run = Machine.#instructions.get(code);
      if (run === undefined) {
        throw new Error(
          `its pickle has the instruction 0x${code.toString(16)}, which files of tensors do not need`,
        );
      }
      run(this);
    }
  }

  /** What each instruction does, by its code. */
  static readonly #instructions: ReadonlyMap<number, (m: Machine) => void> = new Map([
    [0x80, (m) => m.#protocol(m.#byte())], // PROTO
    [0x95, (m) => void m.#take(8)], // FRAME
    [0x4e, (m) => m.#push(null)], // NONE
    [0x88, (m) => m.#push(true)], // NEWTRUE
    [0x89, (m) => m.#push(false)], // NEWFALSE
    [0x4b, (m) => m.#push(m.#byte())], // BININT1
    [0x4d, (m) => m.#push(m.#take(2).readUInt16LE())], // BININT2
    [0x4a, (m) => m.#push(m.#take(4).readInt32LE())], // BININT
    [0x8a, (m) => m.#push(integer(m.#take(m.#byte())))], // LONG1
    [0x8b, (m) => m.#push(integer(m.#take(m.#length4())))], // LONG4
    [0x47, (m) => m.#push(m.#take(8).readDoubleBE())], // BINFLOAT
    [0x8c, (m) => m.#push(m.#text(m.#byte()))], // SHORT_BINUNICODE
    [0x58, (m) => m.#push(m.#text(m.#length4()))], // BINUNICODE
    [0x8d, (m) => m.#push(m.#text(Number(m.#take(8).readBigUInt64LE())))], // BINUNICODE8
    [0x7d, (m) => m.#push(new Map())], // EMPTY_DICT
    [0x5d, (m) => m.#push([])], // EMPTY_LIST
    [0x29, (m) => m.#push([])], // EMPTY_TUPLE
    [0x28, (m) => void m.#stack.push(MARK)], // MARK
    [0x74, (m) => m.#push(m.#sinceMark())], // TUPLE
    [0x85, (m) => m.#push(m.#popMany(1))], // TUPLE1
    [0x86, (m) => m.#push(m.#popMany(2))], // TUPLE2
    [0x87, (m) => m.#push(m.#popMany(3))], // TUPLE3
    [0x61, (m) => m.#append(m.#popMany(1))], // APPEND
    [0x65, (m) => m.#append(m.#sinceMark())], // APPENDS
    [0x73, (m) => m.#setItems(m.#popMany(2))], // SETITEM
    [0x75, (m) => m.#setItems(m.#sinceMark())], // SETITEMS
    [0x71, (m) => void m.#memo.set(m.#byte(), m.#top())], // BINPUT
    [0x72, (m) => void m.#memo.set(m.#length4(), m.#top())], // LONG_BINPUT
    [0x94, (m) => void m.#memo.set(m.#memo.size, m.#top())], // MEMOIZE
    [0x68, (m) => m.#recall(m.#byte())], // BINGET
    [0x6a, (m) => m.#recall(m.#length4())], // LONG_BINGET
    [0x63, (m) => m.#name([m.#line(), m.#line()])], // GLOBAL
    [0x93, (m) => m.#name(m.#popMany(2))], // STACK_GLOBAL
    [0x52, (m) => m.#call()], // REDUCE
    [0x81, (m) => m.#call()], // NEWOBJ
    [0x62, (m) => m.#build()], // BUILD
    [0x51, (m) => m.#push(m.#names.persistent(m.#pop()))], // BINPERSID
  ]);

  #protocol(version: number): void {
    if (version > 5) throw new Error('its pickle is of a protocol above 5');
  }

  #call(): void {
    const args = this.#pop();
    const callee = this.#pop();
    if (!Array.isArray(args)) throw damaged();
    if (isNamed(callee)) this.#push(this.#names.call(callee.name, args));
    else if (isPassedOver(callee)) this.#push(callee);
    else throw damaged();
  }

  /** Attributes of a dictionary, such as the versions of a state dict, are left out; nothing else that is kept has any. */
  #build(): void {
    this.#pop();
    const target = this.#top();
    if (!(target instanceof Map) && !isPassedOver(target)) throw damaged();
  }

  #name(parts: PickleValue[]): void {
    const path = parts.join('.');
    if (!this.#names.knows(path))
      throw new Error(`it holds a ${path}, and only tensors and plain values are read`);
    this.#push({ name: path });
  }

  #append(items: PickleValue[]): void {
    const list = this.#top();
    if (isPassedOver(list)) return;
    if (!Array.isArray(list)) throw damaged();
    for (const item of items) list.push(item);
  }

  #setItems(items: PickleValue[]): void {
    const target = this.#top();
    if (isPassedOver(target)) return;
    if (!(target instanceof Map) || items.length % 2 !== 0) throw damaged();
    for (let i = 0; i < items.length; i += 2)
      target.set(items[i] as PickleValue, items[i + 1] as PickleValue);
  }

  #recall(index: number): void {
    const value = this.#memo.get(index);
    if (value === undefined) throw damaged();
    this.#push(value);
  }

  #push(value: PickleValue): void {
    this.#stack.push(value);
  }

  #top(): PickleValue {
    const value = this.#stack.at(-1);
    if (value === undefined || value === MARK) throw damaged();
    return value;
  }

  #pop(): PickleValue {
    const value = this.#top();
    this.#stack.pop();
    return value;
  }

  #popMany(count: number): PickleValue[] {
    return Array.from({ length: count }, () => this.#pop()).reverse();
  }

  #sinceMark(): PickleValue[] {
    const at = this.#stack.lastIndexOf(MARK);
    if (at < 0) throw damaged();
    return this.#stack.splice(at).slice(1) as PickleValue[];
  }

  #byte(): number {
    return this.#take(1)[0] as number;
  }

  #length4(): number {
    return this.#take(4).readUInt32LE();
  }

  #text(length: number): string {
    return this.#take(length).toString('utf8');
  }

  #line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) throw damaged();
    const text = this.#take(end - this.#at).toString('utf8');
    this.#at++;
    return text;
  }

  #take(count: number): Buffer {
    if (!(count <= this.#bytes.length - this.#at)) throw damaged();
    const part = this.#bytes.subarray(this.#at, this.#at + count);
    this.#at += count;
    return part;
  }
}

function isNamed(value: PickleValue): value is Named {
  return typeof value === 'object' && value !== null && 'name' in value;
}

function isPassedOver(value: PickleValue): boolean {
  return (
    typeof value === 'object' && value !== null && 'constructed' in value && value.constructed === undefined
  );
}

function damaged(): Error {
  return new Error('its pickle is damaged');
}

/** A little-endian integer in two's complement of any length. */
function integer(bytes: Buffer): number | bigint {
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i] as number);
  if (bytes.length > 0 && (bytes[bytes.length - 1] as number) >= 0x80)
    value -= 1n << BigInt(8 * bytes.length);
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
