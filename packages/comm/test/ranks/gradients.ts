/** Gradients of a product of three parameters, combined during backward, against sums written out. Every rank has another factor. */
import assert from 'node:assert/strict';
import { checkpoint, nn, type Tensor } from '@fmoe/torch';
import { GradientReducer, type ProcessGroup } from '../../src/index.js';
import { type Cases, equal, range, sum, throws, torch } from './cases.js';

const [a, b, c] = [2, 3, 5] as const;
const factor = (rank: number): number => rank + 1;
/** Of each parameter, in units of the factor. */
const ofParameter = [b * c, a * c, a * b];

class Product {
  readonly parameters = [a, b, c].map((value) => new nn.Parameter(torch.full([3], value)));
  readonly unused = new nn.Parameter(torch.full([2], 1));
  /** Buckets that had started when backward came to each product, outermost first. */
  early: number[] = [];

  /** In the order of backward: the last parameter is complete first. */
  reducer(group: ProcessGroup, withUnused = false): GradientReducer {
    const buckets = [...(withUnused ? [this.unused] : []), ...this.parameters].reverse();
    return new GradientReducer(
      buckets.map((parameter) => ({ parameters: [parameter], group, divisor: 1 })),
      { overlap: true },
    );
  }

  zeroGrad(): void {
    for (const parameter of [...this.parameters, this.unused]) parameter.grad = null;
  }

  /**
   * Runs forward and backward.
   *
   * @param order of the parameters in the product
   * @param visit called when backward is about to go on with the product of so many parameters
   */
  backward(
    reducer: GradientReducer,
    x: number,
    order: readonly number[] = [0, 1, 2],
    visit?: (depth: number) => void,
  ): void {
    this.early = [];
    let result: Tensor = torch.full([3], x);
    for (const [depth, index] of order.entries()) {
      result = result.mul(this.parameters[index]!);
      result.registerHook(() => {
        this.early.push(reducer.started);
        visit?.(depth + 1);
      });
    }
    result.sum().backward();
  }

  /** A backward that begins without gradients. */
  step(...args: Parameters<Product['backward']>): void {
    this.zeroGrad();
    this.backward(...args);
  }

  expectGradients(units: number, of: readonly number[] = [0, 1, 2]): void {
    for (const index of of) {
      equal(this.parameters[index]!.grad!, Array(3).fill(units * ofParameter[index]!), `parameter ${index}`);
    }
  }
}

export function gradients(world: ProcessGroup): Cases {
  const { rank, size } = world;
  const x = factor(rank);
  const all = sum(range(size, factor));
  // Ranks that compare what they do begin nothing in backward.
  const overlaps = process.env['FMOE_COMM_DEBUG'] !== '1';
  const cases: Cases = {};

  /** A product whose reducer has had its first round, which starts nothing early. */
  const begin = (withUnused = false): { product: Product; reducer: GradientReducer } => {
    const product = new Product();
    const reducer = product.reducer(world, withUnused);
    product.step(reducer, x);
    assert.deepEqual(product.early, [0, 0, 0]);
    reducer.finish();
    product.expectGradients(all);
    return { product, reducer };
  };

  cases['buckets start before backward ends'] = () => {
    const { product, reducer } = begin();
    for (let step = 0; step < 2; step++) {
      product.step(reducer, x);
      assert.deepEqual(product.early, overlaps ? [0, 1, 2] : [0, 0, 0]);
      assert.equal(reducer.started, overlaps ? 3 : 0);
      reducer.finish();
      assert.equal(reducer.started, 0);
      product.expectGradients(all);
    }
    reducer.dispose();
  };

  cases['buckets start in one order, whatever the order of the gradients'] = () => {
    const { product, reducer } = begin();
    const reversed = rank % 2 === 1;
    product.step(reducer, x, reversed ? [2, 1, 0] : [0, 1, 2]);
    // The first bucket is the last to be complete on a rank that goes the other way.
    assert.deepEqual(product.early, overlaps && !reversed ? [0, 1, 2] : [0, 0, 0]);
    reducer.finish();
    product.expectGradients(all);
    reducer.dispose();
  };

  cases['a gradient that some ranks miss counts as zeros, one that all miss stays away'] = () => {
    const { product, reducer } = begin(true);
    for (const missing of [0, 1, 2]) {
      const misses = rank === size - 1;
      const order = [0, 1, 2].filter((index) => !(misses && index === missing));
      product.step(reducer, x, order);
      // Of the buckets 2, 1 and 0: those before the missing one.
      if (overlaps) assert.equal(reducer.started, misses ? 2 - missing : 3);
      reducer.finish();
      for (const index of [0, 1, 2]) {
        // Without the missing parameter, the gradients of the others lack its factor.
        const last = factor(size - 1) * (index === missing ? 0 : 1 / [a, b, c][missing]!);
        const units = all - factor(size - 1) + last;
        const { grad } = product.parameters[index]!;
        if (size === 1 && index === missing) assert.equal(grad, null);
        else {
          const expected = torch.full([3], units * ofParameter[index]!);
          assert.ok(grad!.sub(expected).abs().max().item() < 1e-4, `parameter ${index} without ${missing}`);
        }
      }
      assert.equal(product.unused.grad, null);
    }
    reducer.dispose();
  };

  cases['a backward that throws half-way everywhere leaves nothing behind'] = () => {
    const { product, reducer } = begin();
    const failure = new Error('half-way');
    for (const depth of [1, 2, 3]) {
      assert.throws(
        () =>
          product.step(reducer, 7, undefined, (now) => {
            if (now === depth) throw failure;
          }),
        (error) => error === failure,
      );
      product.step(reducer, x);
      reducer.finish();
      product.expectGradients(all);
    }
    reducer.dispose();
  };

  cases['a backward that throws on one rank only spoils what the others get of it, and no more'] = () => {
    const { product, reducer } = begin();
    if (rank === 0) {
      assert.throws(() =>
        product.step(reducer, x, undefined, (depth) => {
          if (depth === 1) throw new Error('half-way');
        }),
      );
    } else {
      product.step(reducer, x);
      reducer.finish();
      if (overlaps) {
        // Two buckets were on their way.
        product.expectGradients(all, [1, 2]);
        assert.ok(product.parameters[0]!.grad!.isnan().all().item());
      }
    }
    if (rank === 0 && !overlaps) {
      // Nothing has started, so nothing is missing on the others but this rank's call.
      product.step(reducer, x);
      reducer.finish();
    }
    product.step(reducer, x);
    reducer.finish();
    product.expectGradients(all);
    reducer.dispose();
  };

  cases['a backward inside of backward is none that failed'] = () => {
    const { product, reducer } = begin();
    const [first, second, third] = product.parameters as [Tensor, Tensor, Tensor];
    product.zeroGrad();
    const hidden = torch.full([3], x).mul(first);
    const output = checkpoint((inner: Tensor) => inner.mul(second), hidden) as Tensor;
    output.mul(third).sum().backward();
    assert.equal(reducer.started, overlaps ? 3 : 0);
    reducer.finish();
    product.expectGradients(all);
    reducer.dispose();
  };

  cases['a parameter that is used twice'] = () => {
    const { product, reducer } = begin();
    product.step(reducer, x, [0, 1, 2, 1]);
    reducer.finish();
    product.expectGradients(all * b, [0, 2]);
    product.expectGradients(2 * all * b, [1]);
    reducer.dispose();
  };

  cases['several backwards in a step'] = () => {
    const { product, reducer } = begin();
    product.zeroGrad();
    reducer.pause(() => reducer.pause(() => product.backward(reducer, x)));
    assert.deepEqual(product.early, [0, 0, 0]);
    product.backward(reducer, x);
    assert.equal(reducer.started, overlaps ? 3 : 0);
    reducer.finish();
    product.expectGradients(2 * all);
    reducer.dispose();
  };

  cases['a second backward whose gradients come too late'] = () => {
    const { product, reducer } = begin();
    product.step(reducer, x);
    if (overlaps) {
      throws('ERR_AUTOGRAD', /on its way to the other ranks already/, () => product.backward(reducer, x));
      // The step is lost, the next one is not.
      product.step(reducer, x);
    }
    reducer.finish();
    product.expectGradients(all);
    reducer.dispose();
  };

  cases['a group that fails is told by finish'] = () => {
    const group = world.split(0)!;
    const product = new Product();
    const reducer = product.reducer(group);
    product.step(reducer, x);
    reducer.finish();
    group.abort('no longer wanted');
    product.step(reducer, x);
    if (size > 1) throws('ERR_COMM', /no longer wanted/, () => reducer.finish());
    assert.equal(reducer.started, size === 1 && overlaps ? 3 : 0);
    reducer.dispose();
  };

  cases['hooks go with the reducer'] = () => {
    const { product, reducer } = begin();
    const other = product.reducer(world);
    reducer.dispose();
    reducer.dispose();
    throws('ERR_ARGUMENT', /there is no gradient reducer/, () => reducer.started);
    product.step(other, x);
    other.finish();
    product.expectGradients(all);
    other.dispose();
    product.zeroGrad();
    torch.full([3], x).mul(product.parameters[0]!).sum().backward();
    equal(product.parameters[0]!.grad!, [x, x, x]);
  };

  return cases;
}
