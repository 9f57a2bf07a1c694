/** Shape letters: D model width, r rows of one expert. */
import { nn, type Tensor } from '@fmoe/torch';

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
