import * as torch from '../../src/index.js';

/** Numbers from 0 up to 1 that a seed determines (mulberry32). */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let bits = this.#state;
    bits = Math.imul(bits ^ (bits >>> 15), bits | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<Item>(items: readonly Item[]): Item {
    return items[Math.floor(this.next() * items.length)]!;
  }
}

const shapes = [
  [],
  [0],
  [1],
  [2],
  [3],
  [2, 3],
  [3, 3],
  [3, 2],
  [1, 3, 4, 4],
  [2, 3, 4],
  [0, 3],
  [2, 2, 2, 2, 2],
];
const smallIntegers = [0, 1, 2, 3, -1, 0, 1];
// Sizes between these would take minutes or all memory instead of failing.
const hugeIntegers = [100, -100, 2 ** 53 - 1, -(2 ** 53 - 1), 1e12, 2n ** 63n - 1n, -(2n ** 63n)];
const numbers = [0, 1, 0.5, -1, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1e300, -0, 3];
const words = [
  'mean',
  'none',
  'sum',
  'floor',
  'reflect',
  'constant',
  'tanh',
  'ij,jk->ik',
  '...->',
  'left',
  'linear',
  '',
];
const devices = ['cpu', 'cpu', 'meta', 'cuda:99', 'nowhere', ''];

/** A value that fits no argument, or hardly any. */
function junk(dice: Dice): unknown {
  return dice.pick<unknown>([
    undefined,
    null,
    'x',
    {},
    [],
    Number.NaN,
    1.5,
    Symbol('s'),
    () => 1,
    2n ** 70n,
    [[1]],
    [null],
    new Float32Array(2),
    [undefined],
    { foo: 1 },
    true,
    new Date(0),
  ]);
}

/** A tensor of some shape and dtype; now and then transposed, without data, disposed, or full of infinities. */
function tensorOf(dice: Dice): torch.Tensor {
  const dtype = dice.chance(0.5) ? 'float32' : dice.pick(torch.dtypes);
  const shape = dice.pick(shapes);
  const isReal = dtype === 'float32' || dtype === 'float64';
  const tensor = isReal
    ? torch.randn(shape, { dtype })
    : torch.randint(dice.pick([-5, 0]), 6, shape).to(dtype);
  const fate = dice.next();
  if (fate < 0.1 && shape.length >= 2) return tensor.transpose(0, 1);
  if (fate < 0.15) return tensor.to('meta');
  if (fate < 0.2) tensor.dispose();
  else if (isReal && fate < 0.3) tensor.requiresGrad_();
  else if (isReal && fate < 0.33) tensor.fill_(dice.pick([Number.NaN, Number.POSITIVE_INFINITY, 0]));
  return tensor;
}

const integer = (dice: Dice): unknown => dice.pick<unknown>(dice.chance(0.8) ? smallIntegers : hugeIntegers);

function listOf<Item>(dice: Dice, item: (dice: Dice) => Item): Item[] {
  return Array.from({ length: dice.pick([0, 1, 1, 2, 2, 3, 4, 5]) }, () => item(dice));
}

const makers: Record<string, (dice: Dice) => unknown> = {
  Tensor: tensorOf,
  'Tensor[]': (dice) => listOf(dice, tensorOf),
  'Tensor?[]': (dice) => listOf(dice, (d) => (d.chance(0.3) ? null : tensorOf(d))),
  int: integer,
  'int[]': (dice) => (dice.chance(0.2) ? integer(dice) : listOf(dice, integer)),
  float: (dice) => dice.pick(numbers),
  'float[]': (dice) => listOf(dice, (d) => d.pick(numbers)),
  bool: (dice) => dice.chance(0.5),
  'bool[]': (dice) => listOf(dice, (d) => d.chance(0.5)),
  Scalar: (dice) => dice.pick<unknown>([...numbers, true, false, 2n ** 63n - 1n]),
  'Scalar[]': (dice) => listOf(dice, (d) => d.pick(numbers)),
  str: (dice) => dice.pick(words),
  ScalarType: (dice) => (dice.chance(0.9) ? dice.pick(torch.dtypes) : 'float31'),
  Layout: () => 'strided',
  Device: (dice) => dice.pick(devices),
  MemoryFormat: (dice) => dice.pick(['contiguous', 'preserve', 'channels_last', 'channels_last_3d']),
  Generator: (dice) => (dice.chance(0.5) ? null : new torch.Generator()),
};

/** A value for an argument of a schema type: mostly of the right kind, seldom right. */
export function valueFor(dice: Dice, type: string): unknown {
  if (dice.chance(0.08)) return junk(dice);
  const optional = type.endsWith('?');
  if (optional && dice.chance(0.4)) return dice.pick([null, undefined]);
  const base = (optional ? type.slice(0, -1) : type).replace('SymInt', 'int');
  return makers[base]?.(dice);
}
