import * as torch from '../../src/index.js';
import {
  Dropout,
  Embedding,
  GELU,
  Identity,
  LayerNorm,
  Linear,
  Module,
  ModuleDict,
  ModuleList,
  Parameter,
  ParameterList,
  ReLU,
  Sequential,
  Tanh,
} from '../../src/nn/index.js';

/** The classes `Block` and `Tied` of make_nn_fixtures.py. */
export class Block extends Module {
  readonly first: Linear;
  readonly scale: Parameter;
  readonly norm: LayerNorm;
  readonly shift: Parameter;

  constructor() {
    super();
    this.registerBuffer('steps', torch.zeros([2]));
    this.first = new Linear(3, 4);
    this.scale = new Parameter(torch.ones([4]));
    this.registerBuffer('scratch', torch.zeros([5]), { persistent: false });
    this.norm = new LayerNorm(4);
    this.shift = new Parameter(torch.zeros([4]));
    this.registerBuffer('mean', torch.zeros([4]));
  }

  override forward(x: torch.Tensor): torch.Tensor {
    return this.norm.call(this.first.call(x)).mul(this.scale).add(this.shift);
  }
}

export class Tied extends Module {
  readonly embed = new Embedding(6, 4);
  readonly blocks = new ModuleList([new Block(), new Block()]);
  readonly shared: Block;
  readonly out: Linear;
  readonly experts: ModuleDict;
  readonly biases: ParameterList;

  constructor() {
    super();
    this.shared = this.blocks.at(0);
    this.out = new Linear(4, 6, { bias: false });
    this.out.weight.dispose();
    this.out.weight = this.embed.weight;
    this.experts = new ModuleDict<Module>([
      ['10', new ReLU()],
      ['2', new Linear(2, 2)],
      ['a', new Identity()],
    ]);
    this.biases = new ParameterList([new Parameter(torch.zeros([2])), torch.zeros([3])]);
  }
}

export const composedModels: Record<string, () => Module> = {
  Block: () => new Block(),
  Tied: () => new Tied(),
  Sequential: () =>
    new Sequential(
      new Linear(3, 4, { bias: false }),
      new ReLU({ inplace: true }),
      new Sequential(new Dropout(0.25), new LayerNorm([4, 2])),
    ),
  ModuleList: () =>
    new ModuleList<Module>([
      new Linear(3, 3),
      new Linear(3, 3),
      new Linear(3, 3),
      new GELU(),
      new Tanh(),
      new Tanh(),
    ]),
  Empty: () => new Sequential(new ModuleList(), new ModuleDict(), new Sequential()),
};
