/** Shape letters: D model width, r rows of one expert. */
import { nn, type Tensor, zeros } from '@fmoe/torch';
import { FMoELinear } from '../src/index.js';

/** Narrows to half the width, so that a layer's output is not as wide as its input. Remembers how many rows it was given. */
export class HalvingExpert extends nn.Module {
  readonly down: nn.Linear;
  readonly calls: number[] = [];
  constructor(dModel: number) {
    super();
    this.down = new nn.Linear(dModel, dModel / 2);
  }
  override forward(rows: Tensor): Tensor {
    this.calls.push(rows.shape[0]!);
    return this.down.forward(rows).tanh();
  }
}

export class TwoLayerExpert extends nn.Module {
  readonly up: nn.Linear;
  readonly down: nn.Linear;
  constructor(dModel: number, width: number) {
    super();
    this.up = new nn.Linear(dModel, width);
    this.down = new nn.Linear(width, dModel);
  }
  override forward(rows: Tensor): Tensor {
    return this.down.forward(this.up.forward(rows).relu());
  }
}

/** Takes the number of rows as a second argument, as FastMoE's experts do. */
export class CountingExpert extends nn.Module {
  readonly linear: nn.Linear;
  readonly counts: bigint[] = [];
  constructor(dModel: number) {
    super();
    this.linear = new nn.Linear(dModel, dModel);
  }
  override forward(rows: Tensor, count: Tensor): Tensor {
    this.counts.push(...(count.toArray() as bigint[]));
    return this.linear.forward(rows).sin();
  }
}

/** From 4 numbers to 5 and back, as FastMoE's `_Expert` of one expert, whose parameters have a first dimension of 1. */
export class SingleExpert extends nn.Module {
  readonly htoh4 = new FMoELinear({ numExpert: 1, inFeatures: 4, outFeatures: 5 });
  readonly h4toh = new FMoELinear({ numExpert: 1, inFeatures: 5, outFeatures: 4 });
  override forward(rows: Tensor, count: Tensor): Tensor {
    const offsets = zeros([2], { dtype: 'int64' }).indexFill(
      0,
      zeros([1], { dtype: 'int64' }).add(1),
      count.squeeze(0),
    );
    return this.h4toh.forward(this.htoh4.forward(rows, offsets).gelu(), offsets);
  }
}
