import { memory, tidy } from '@fmoe/torch';
import { describe, expect, it } from 'vitest';
import { codedError } from '../../test/support/temporary-folder.js';
import { OrderedIterator } from './ordered-iterator.js';

/** Ids that tell their place in the stream. */
const stream = Int32Array.from({ length: 1003 }, (_, index) => index * 3);

interface Rows {
  data: number[][];
  target: number[][];
  first: boolean;
}

function read(iterator: OrderedIterator): Rows {
  return tidy(() => {
    const { data, target, first } = iterator.next();
    expect(data.dtype).toBe('int64');
    const rows = (values: unknown): number[][] => (values as bigint[][]).map((row) => row.map(Number));
    return { data: rows(data.toArray()), target: rows(target.toArray()), first };
  });
}

describe('OrderedIterator', () => {
  it('lays columns side by side and shifts targets by one', () => {
    const iterator = new OrderedIterator(stream, { batchSize: 5, targetLength: 7 });
    // 1003 tokens: five columns of 200, three tokens left out.
    expect(iterator.columnLength).toBe(200);
    expect(iterator.segments).toBe(29);
    let position = 0;
    for (let segment = 0; segment < iterator.segments; segment++) {
      const { data, target, first } = read(iterator);
      const length = Math.min(7, 199 - position);
      const expected = (shift: number) =>
        Array.from({ length }, (_, row) =>
          Array.from({ length: 5 }, (_, column) => 3 * (column * 200 + position + row + shift)),
        );
      expect(data).toEqual(expected(0));
      expect(target).toEqual(expected(1));
      expect(first).toBe(segment === 0);
      position += length;
    }
    expect(position).toBe(199);
    expect(iterator.state()).toEqual({ epoch: 0, position: 199 });
    expect(read(iterator).first).toBe(true);
    expect(iterator.state()).toEqual({ epoch: 1, position: 7 });
  });

  it('reads earlier tokens again with an extended context', () => {
    const iterator = new OrderedIterator(stream, { batchSize: 2, targetLength: 4, extendedLength: 3 });
    expect(read(iterator).data.length).toBe(4);
    const second = read(iterator);
    expect(second.data.map(([id]) => id! / 3)).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(second.target.map(([id]) => id! / 3)).toEqual([5, 6, 7, 8]);
  });

  it('goes on from a saved state', () => {
    const settings = { batchSize: 4, targetLength: 9 };
    const iterator = new OrderedIterator(stream, settings);
    for (let i = 0; i < 30; i++) read(iterator);
    const state: unknown = JSON.parse(JSON.stringify(iterator.state()));
    const again = new OrderedIterator(stream, settings);
    again.restore(state as never);
    for (let i = 0; i < 40; i++) expect(read(again)).toEqual(read(iterator));
  });

  it('walks one pass without losing its place, also when the walk is broken off', () => {
    const iterator = new OrderedIterator(stream, { batchSize: 4, targetLength: 9 });
    read(iterator);
    const before = iterator.state();
    const firsts = tidy(() => [...iterator.pass()].map((batch) => batch.first));
    expect(firsts).toEqual([true, ...new Array(iterator.segments - 1).fill(false)]);
    expect(iterator.state()).toEqual(before);
    tidy(() => {
      for (const _ of iterator.pass()) break;
    });
    expect(iterator.state()).toEqual(before);
  });

  it('works on every width of ids', () => {
    const large = new OrderedIterator(Int32Array.of(70_000, 2 ** 31 - 1, 5), {
      batchSize: 1,
      targetLength: 2,
    });
    expect(read(large).target).toEqual([[2 ** 31 - 1], [5]]);
    const small = new OrderedIterator(Uint8Array.of(255, 1, 2), { batchSize: 1, targetLength: 2 });
    expect(read(small).data).toEqual([[255], [1]]);
  });

  it('leaves no tensor behind', () => {
    const iterator = new OrderedIterator(stream, { batchSize: 4, targetLength: 9 });
    read(iterator);
    const before = memory().tensors;
    for (let i = 0; i < 10; i++) read(iterator);
    expect(memory().tensors).toBe(before);
  });

  it('refuses sizes and states that do not fit', () => {
    const make = (batchSize: number, targetLength: number) => () =>
      new OrderedIterator(stream, { batchSize, targetLength });
    expect(make(0, 4)).toThrow(codedError('ERR_ARGUMENT', /batchSize is 0/));
    expect(make(2, 1.5)).toThrow(codedError('ERR_ARGUMENT', /targetLength is 1\.5/));
    expect(make(600, 4)).toThrow(
      codedError('ERR_FILE', /The text is too short: 1003 tokens do not fill 600 columns/),
    );
    const iterator = make(4, 4)();
    for (const state of [
      { epoch: 0, position: 250 },
      { epoch: -1, position: 0 },
      { epoch: 0, position: 1.5 },
    ]) {
      expect(() => iterator.restore(state)).toThrow(codedError('ERR_ARGUMENT', /saved data position/));
    }
  });
});
