import { grad, noGrad, randnLike, type Tensor, tidy } from '@fmoe/torch';

/** Step of the central difference. */
const step = 1e-6;

/**
 * Compares the gradient of a scalar with its central difference along a random direction, for one float64 tensor. One
 * direction costs two evaluations, however many elements there are, and no wrong gradient passes but by chance.
 *
 * @param evaluate a deterministic function of `input`, which it reads anew each time
 * @param isComparable whether both sides of the difference can be compared, such as that the same experts were chosen there
 * @throws Error when they differ
 */
export function expectDirectionalGradient(
  name: string,
  input: Tensor,
  evaluate: () => Tensor,
  isComparable: () => boolean = () => true,
): void {
  tidy(() => {
    const output = evaluate();
    const [gradient] = output.requiresGrad
      ? grad([output], [input], { allowUnused: true as boolean })
      : [null];
    const direction = randnLike(input);
    const analytic = gradient ? gradient.mul(direction).sum().item() : 0;
    const at = (offset: number) =>
      noGrad(() => {
        const moved = input.detach();
        moved.add_(direction.mul(offset));
        try {
          return { value: evaluate().item(), comparable: isComparable() };
        } finally {
          moved.sub_(direction.mul(offset));
        }
      });
    const [above, below] = [at(step), at(-step)];
    if (!above.comparable || !below.comparable) return;
    const numeric = (above.value - below.value) / (2 * step);
    if (Math.abs(analytic - numeric) <= 1e-6 + 1e-5 * Math.abs(numeric)) return;
    throw new Error(
      `the gradient of ${name} along a random direction is ${analytic}, by central differences it is ${numeric}`,
    );
  });
}
