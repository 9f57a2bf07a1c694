/** Shape letters: r rows, I inputs, O outputs, G degree of the polynomials. */
import { empty, nn, onesLike, stack, type Tensor } from '@fmoe/torch';

/**
 * A layer of a Kolmogorov-Arnold network (Liu et al., 2024, arXiv 2404.19756): every edge from an input to an output has a
 * learned function of one variable, y_o = Σ_i φ_oi(x_i). Here it is a Chebyshev series, φ(x) = Σ_g c_g T_g(tanh x); the
 * tanh brings any x to where the polynomials are defined.
 */
export class ChebyshevLayer extends nn.Module {
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly degree: number;
  /** `[O, I · (G + 1)]`, N(0, 1 / (I · (G + 1))) at first, so that an output is about as large as an input. */
  readonly coefficients: nn.Parameter;

  constructor(inFeatures: number, outFeatures: number, degree: number) {
    super();
    this.inFeatures = inFeatures;
    this.outFeatures = outFeatures;
    this.degree = degree;
    const terms = inFeatures * (degree + 1);
    this.coefficients = new nn.Parameter(empty([outFeatures, terms]));
    nn.init.normal_(this.coefficients, 0, 1 / Math.sqrt(terms));
  }

  /** @param x `[r, I]` @returns `[r, O]` */
  override forward(x: Tensor): Tensor {
    const rows = x.shape[0] as number;
    const { inFeatures, degree } = this;
    const t = x.tanh();
    // T_0 = 1, T_1 = t, T_g = 2 t T_{g-1} - T_{g-2}
    const terms = [onesLike(t), t];
    for (let g = 2; g <= degree; g++) {
      terms.push(
        t
          .mul(2)
          .mul(terms[g - 1] as Tensor)
          .sub(terms[g - 2] as Tensor),
      );
    }
    const basis = stack(terms.slice(0, degree + 1), -1).reshape([rows, inFeatures * (degree + 1)]);
    return basis.matmul(this.coefficients.t());
  }

  override extraRepr(): string {
    return `in_features=${this.inFeatures}, out_features=${this.outFeatures}, degree=${this.degree}`;
  }
}
