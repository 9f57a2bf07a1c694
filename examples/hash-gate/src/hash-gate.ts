/** Shape letters: T tokens, D model width, N all experts, K top-k, P hyperplanes. */
import { BaseGate, type GateOptions, type TokenRoute } from '@fmoe/layers';
import { arange, FmoeError, ones, randn, type Tensor, tensor } from '@fmoe/torch';

/** Settings of {@link HashGate}. */
export interface HashGateOptions extends GateOptions {
  /** Hyperplanes P that a hash is made of, at most 20. More of them tell more tokens apart. Default 8. */
  planes?: number;
}

/** Knuth's multiplicative hashing: an odd number near 2³² divided by the golden ratio spreads neighbouring codes. */
const spread = 2654435761;

/**
 * Chooses experts by a hash of the token instead of a learned router (Roller et al., Hash Layers, 2021, arXiv 2106.04426). The
 * hash is locality-sensitive (Charikar, 2002): on which side of P random hyperplanes the token lies. Near tokens share their
 * experts, and nothing is learned, so there is no balance loss.
 *
 * A token gets K neighbouring experts, each with the score 1 / K.
 */
export class HashGate extends BaseGate {
  static override readonly optionNames: readonly string[] = [...super.optionNames, 'planes'];

  /** The normals of the hyperplanes `[D, P]`; part of the state dict, as the experts learn what they separate. */
  declare readonly normals: Tensor;
  readonly planes: number;

  /** @throws FmoeError `ERR_ARGUMENT` unless `planes` is an integer from 1 to 20. */
  constructor(options: HashGateOptions) {
    super(options);
    const { planes = 8 } = options;
    if (!Number.isInteger(planes) || planes < 1 || planes > 20) {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `HashGate: planes must be an integer from 1 to 20, got ${planes}.`,
        {
          op: 'HashGate',
          argument: 'planes',
        },
      );
    }
    this.planes = planes;
    this.registerBuffer('normals', randn([this.dModel, planes]));
  }

  /** @param x tokens `[T, D]` */
  override forward(x: Tensor): TokenRoute {
    const tokens = x.shape[0] as number;
    const { topK, numExpert, planes } = this;
    const int64 = { dtype: 'int64', device: x.device } as const;
    const bits = tensor(
      Array.from({ length: planes }, (_, bit) => 2 ** bit),
      int64,
    );
    const sides = x.detach().float().matmul(this.normals.float()).gt(0);
    const code = sides.long().mul(bits).sum([1], true);
    const first = code
      .mul(spread)
      .remainder(2 ** 32)
      .divide(2 ** 16, { roundingMode: 'floor' });
    return {
      topIdx: first.add(arange(topK, int64)).remainder(numExpert),
      topScore: ones([tokens, topK], { dtype: x.dtype, device: x.device }).div(topK),
    };
  }

  override extraRepr(): string {
    return `${super.extraRepr()}, planes=${this.planes}`;
  }
}
