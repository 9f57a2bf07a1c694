import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { refuses, wrong } from '../../test/refusals.js';
import * as torch from '../index.js';
import { native } from '../native/index.js';
import { collectGarbage } from '../testing/index.js';
import { dtypeTraits } from './dtype.js';

interface Bits {
  dtype: torch.DType;
  given: (number | string | boolean)[];
  read: (number | string | boolean)[];
  hex: string;
}

const known = JSON.parse(
  readFileSync(new URL('../../test/fixtures/core-bits.json', import.meta.url), 'utf8'),
) as Bits[];
const value = (text: number | string | boolean, dtype: torch.DType): number | bigint | boolean =>
  dtype === 'int64'
    ? BigInt(text as string)
    : typeof text === 'string'
      ? Number(text.replace('inf', 'Infinity'))
      : text;
const hexOf = ({ buffer, byteOffset, byteLength }: torch.TypedArray): string =>
  Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength).toString('hex');

describe.each(known)('$dtype', ({ dtype, given, read, hex }) => {
  it('has the bits that PyTorch has', () => {
    torch.tidy(() => {
      const tensor = torch.tensor(
        given.map((item) => value(item, dtype)),
        { dtype },
      );
      expect(hexOf(tensor.data())).toBe(hex);
      expect(tensor.toArray()).toEqual(read.map((item) => value(item, dtype)));
    });
  });

  it('comes in and goes out as a typed array of its class', () => {
    torch.tidy(() => {
      const { array: ArrayClass, bytes } = dtypeTraits(dtype);
      const raw = Uint8Array.from(Buffer.from(hex, 'hex'));
      const typed = new ArrayClass(raw.buffer);
      const tensor = torch.fromTypedArray(typed, [given.length, 1], { dtype });
      expect([tensor.dtype, tensor.shape]).toEqual([dtype, [given.length, 1]]);
      const out = tensor.data();
      expect(out).toBeInstanceOf(ArrayClass);
      expect([out.length, out.BYTES_PER_ELEMENT, hexOf(out)]).toEqual([given.length, bytes, hex]);
      expect(hexOf(torch.fromTypedArray(raw, [given.length], { dtype }).data())).toBe(hex);
    });
  });

  it('shares memory in both directions', () => {
    torch.tidy(() => {
      const { array: ArrayClass, bytes } = dtypeTraits(dtype);
      const typed = new ArrayClass(new ArrayBuffer(4 * bytes));
      const tensor = torch.fromTypedArray(typed, [4], { dtype });
      const [one, raw] = [tensor.clone().fill_(1), tensor.data()];
      tensor.copy_(one);
      expect(hexOf(typed)).toBe(hexOf(one.data()));
      expect(hexOf(raw)).toBe(hexOf(typed));
      typed.fill((dtype === 'int64' ? 0n : 0) as never);
      expect(tensor.double().sum().item()).toBe(0);
      const copy = torch.fromTypedArray(typed, [4], { dtype, copy: true });
      copy.fill_(1);
      expect(tensor.double().sum().item()).toBe(0);
    });
  });
});

describe('zero copy', () => {
  it('lends the memory of a contiguous tensor, also of a part of one', () => {
    torch.tidy(() => {
      const x = torch.arange(12).reshape([3, 4]);
      const middle = x.narrow(0, 1, 1);
      const data = middle.data();
      expect(Array.from(data as Float32Array)).toEqual([4, 5, 6, 7]);
      data[0] = -1;
      expect(x.at(1, 0).item()).toBe(-1);
      x.at(1).fill_(9);
      expect(Array.from(data as Float32Array)).toEqual([9, 9, 9, 9]);
    });
  });

  it('copies where the elements do not lie in order', () => {
    torch.tidy(() => {
      const x = torch.arange(6).reshape([2, 3]);
      const data = x.t().data();
      expect(Array.from(data as Float32Array)).toEqual([0, 3, 1, 4, 2, 5]);
      data[0] = 7;
      expect(x.at(0, 0).item()).toBe(0);
      expect(Array.from(torch.ones([1]).expand([3]).data() as Float32Array)).toEqual([1, 1, 1]);
    });
  });

  it('reads a tensor that requires gradients, without history', () => {
    torch.tidy(() => {
      const x = torch.ones([2], { requiresGrad: true });
      expect(Array.from(x.mul(3).data() as Float32Array)).toEqual([3, 3]);
    });
  });

  it('starts where the view of a larger buffer starts', () => {
    torch.tidy(() => {
      const whole = Float32Array.from([0, 1, 2, 3]);
      const tensor = torch.fromTypedArray(whole.subarray(1, 3));
      tensor.mul_(10);
      expect(Array.from(whole)).toEqual([0, 10, 20, 3]);
      // A Buffer is a Uint8Array, and small ones lie somewhere inside of a pool.
      expect(torch.fromTypedArray(Buffer.from([1, 2, 3])).toArray()).toEqual([1, 2, 3]);
    });
  });

  it('copies what is not aligned, what is shared and what can shrink', () => {
    torch.tidy(() => {
      const bytes = new Uint8Array(9);
      new DataView(bytes.buffer).setFloat64(1, 2.5, true);
      expect(torch.fromTypedArray(bytes.subarray(1), [1], { dtype: 'float64' }).item()).toBe(2.5);
      const shared = new Float32Array(new SharedArrayBuffer(4));
      const ofShared = torch.fromTypedArray(shared);
      shared[0] = 1;
      expect(ofShared.item()).toBe(0);
      const Resizable = ArrayBuffer as unknown as new (
        size: number,
        options: object,
      ) => ArrayBuffer & { resize(n: number): void };
      const buffer = new Resizable(8, { maxByteLength: 1 << 20 });
      const tensor = torch.fromTypedArray(new Float32Array(buffer).fill(3));
      buffer.resize(0);
      expect(tensor.toArray()).toEqual([3, 3]);
    });
  });

  it('keeps lent memory from being transferred away', () => {
    torch.tidy(() => {
      const typed = new Float32Array([1, 2]);
      const tensor = torch.fromTypedArray(typed);
      try {
        structuredClone(typed.buffer, { transfer: [typed.buffer] });
      } catch (error) {
        expect((error as Error).name).toBe('DataCloneError');
      }
      expect([typed.length, tensor.toArray()]).toEqual([2, [1, 2]]);
    });
  });

  it('makes bytes that are neither 0 nor 1 into true', () => {
    torch.tidy(() => {
      const flags = torch.fromTypedArray(Uint8Array.from([0, 1, 2, 255]), [4], { dtype: 'bool' });
      expect(flags.toArray()).toEqual([false, true, true, true]);
      expect(flags.sum().item()).toBe(3);
      expect(Array.from(flags.data() as Uint8Array)).toEqual([0, 1, 1, 1]);
    });
  });

  it('reads conjugates and negatives as they are', () => {
    torch.tidy(() => {
      const z = torch.viewAsComplex(torch.tensor([[1, 2]])).conj();
      expect(torch.viewAsReal(z.resolveConj()).toArray()).toEqual([[1, -2]]);
      expect(z.imag().toArray()).toEqual([-2]);
    });
  });
});

describe('lifetimes', () => {
  const words = 1 << 18;
  /** Overwrites whatever memory was given back. */
  const churn = (): void => {
    for (let i = 0; i < 8; i++) new Float32Array(words).fill(-1);
    torch.tidy(() => {
      for (let i = 0; i < 8; i++) torch.full([words], -2);
    });
  };

  it('a tensor keeps the ArrayBuffer that it shares', async () => {
    const tensor = (() => torch.fromTypedArray(new Float32Array(words).fill(5)))();
    await collectGarbage();
    churn();
    expect([tensor.min().item(), tensor.max().item()]).toEqual([5, 5]);
    tensor.dispose();
  });

  it('a typed array keeps the memory that a tensor lent it', async () => {
    const data = torch.tidy(() => torch.full([words], 6).data());
    await collectGarbage();
    churn();
    expect((data as Float32Array).every((item) => item === 6)).toBe(true);
  });

  it('a round trip through both keeps the first owner', async () => {
    const again = (() => {
      const tensor = torch.fromTypedArray(new Float32Array(words).fill(7));
      const view = torch.fromTypedArray(tensor.data() as Float32Array);
      tensor.dispose();
      return view;
    })();
    await collectGarbage();
    churn();
    expect([again.min().item(), again.max().item()]).toEqual([7, 7]);
    again.dispose();
  });

  it('gives ArrayBuffers back once their tensors are gone', async () => {
    await collectGarbage();
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 50; i++) torch.fromTypedArray(new Float32Array(words)).dispose();
    await collectGarbage();
    native().liveCallbacks();
    await collectGarbage();
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(5 * words * 4);
  });

  it('gives lent memory back once nobody reads it', async () => {
    const read = (): void =>
      torch.tidy(() => {
        torch.ones([4 * words]).data();
      });
    for (let i = 0; i < 5; i++) read();
    await collectGarbage();
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 100; i++) {
      read();
      if (i % 10 === 0) await collectGarbage();
    }
    await collectGarbage();
    // Without release it would be 400 MiB.
    expect(process.memoryUsage().rss - before).toBeLessThan(150 * 2 ** 20);
  });
});

describe('fromTypedArray refuses', () => {
  const six = () => new Float32Array(6);
  refuses([
    [
      'a shape with another number of elements',
      'ERR_SHAPE',
      /\[4\] needs 4.*has 6/,
      () => torch.fromTypedArray(six(), [4]),
    ],
    ['negative sizes', 'ERR_SHAPE', /\[-1, -6\].*negative/, () => torch.fromTypedArray(six(), [-1, -6])],
    ['fractions of sizes', 'ERR_ARGUMENT', /1.5/, () => torch.fromTypedArray(six(), [1.5, 4])],
    [
      'a shape that is no array',
      'ERR_ARGUMENT',
      /'shape'.*'x'/,
      () => torch.fromTypedArray(six(), wrong('x')),
    ],
    [
      'too many dimensions',
      'ERR_SHAPE',
      /64 dimensions/,
      () => torch.fromTypedArray(new Float32Array(1), new Array(65).fill(1)),
    ],
    ['an array', 'ERR_ARGUMENT', /typed array, got \[1, 2\]/, () => torch.fromTypedArray(wrong([1, 2]))],
    ['null', 'ERR_ARGUMENT', /got null/, () => torch.fromTypedArray(wrong(null))],
    [
      'a DataView',
      'ERR_ARGUMENT',
      /DataView/,
      () => torch.fromTypedArray(wrong(new DataView(new ArrayBuffer(8)))),
    ],
    ['an ArrayBuffer', 'ERR_ARGUMENT', /ArrayBuffer/, () => torch.fromTypedArray(wrong(new ArrayBuffer(8)))],
    [
      'a class without a dtype',
      'ERR_DTYPE',
      /Uint32Array/,
      () => torch.fromTypedArray(wrong(new Uint32Array(1))),
    ],
    ['raw bits without a dtype', 'ERR_DTYPE', /Uint16Array/, () => torch.fromTypedArray(new Uint16Array(1))],
    [
      'a dtype of another size',
      'ERR_DTYPE',
      /cannot hold float32/,
      () => torch.fromTypedArray(new Float64Array(1), [1], { dtype: 'float32' }),
    ],
    [
      'a dtype of another kind',
      'ERR_DTYPE',
      /cannot hold int32/,
      () => torch.fromTypedArray(new Float32Array(1), [1], { dtype: 'int32' }),
    ],
    [
      'an unknown dtype',
      'ERR_DTYPE',
      /'float31'/,
      () => torch.fromTypedArray(six(), [6], { dtype: wrong('float31') }),
    ],
    [
      'an unknown option',
      'ERR_ARGUMENT',
      /'share'/,
      () => torch.fromTypedArray(six(), [6], wrong({ share: true })),
    ],
    [
      'more bytes than there are',
      'ERR_SHAPE',
      /needs/,
      () => torch.fromTypedArray(six(), [2 ** 30, 2 ** 30]),
    ],
  ]);
});
