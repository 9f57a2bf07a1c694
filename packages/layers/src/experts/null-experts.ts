import { nn, type Tensor, zerosLike } from '@fmoe/torch';

/**
 * An expert that gives zeros (Jin et al., MoE++, 2024, arXiv 2410.07348): a token that chooses it skips this choice. It costs
 * nothing and has no parameters. One that gives back its rows is `nn.Identity`.
 *
 * For experts of a list; the options `numZeroExpert` and `numIdentityExpert` add such experts to any layer without moving a
 * row to them.
 */
export class ZeroExpert extends nn.Module {
  /** @param rows `[r, D]` @returns zeros `[r, D]` */
  override forward(rows: Tensor): Tensor {
    return zerosLike(rows);
  }
}
