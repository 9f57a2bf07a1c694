import { type AutocastState, autocast, autocastStates } from '../autocast.js';
import { checkFunction, checkTensors } from '../check.js';
import { FmoeError } from '../errors.js';
import { native } from '../native/index.js';
import { getRngState, setRngState } from '../random/random.js';
import { empty } from '../tensor/factories.js';
import type { Tensor } from '../tensor/tensor.js';
import { backward } from './backward.js';
import { AutogradFunction, type FunctionContext, type Gradients } from './function.js';
import { enableGrad, isGradEnabled } from './grad-mode.js';

/**
 * Runs `body` without keeping its intermediate tensors, and runs it again in backward: memory for time. Random numbers
 * (dropout) and autocast are the same in both runs. Gradients reach the inputs and whatever parameters `body` uses.
 *
 * @param body a function of tensors that gives back a tensor or an array of tensors
 * @throws FmoeError `ERR_ARGUMENT` for inputs or results that are no tensors. In backward: `ERR_AUTOGRAD` when only chosen
 * gradients are computed (`torch.grad`, or `backward` with `inputs`), as the second run adds up gradients in every leaf, and
 * with `createGraph`, as its graph is gone when the backward ends.
 */
export function checkpoint<Inputs extends Tensor[], Output extends Tensor | Tensor[]>(
  body: (...inputs: Inputs) => Output,
  ...inputs: Inputs
): Output {
  checkFunction('checkpoint', 'body', body);
  checkTensors('checkpoint', 'inputs', inputs);
  // A leaf that requires a gradient makes the graph reach this node also when only parameters need gradients.
  const anchor = empty([0], { requiresGrad: true });
  return Checkpoint.apply(body, anchor, ...inputs) as Output;
}

type Body = (...inputs: Tensor[]) => Tensor | Tensor[];

class Checkpoint extends AutogradFunction {
  static forward(
    context: FunctionContext,
    body: unknown,
    _anchor: Tensor,
    ...inputs: Tensor[]
  ): Tensor | Tensor[] {
    const devices = [...new Set(inputs.map(({ device }) => device).filter((device) => device !== 'cpu'))];
    context.state = {
      body,
      requiresGrad: inputs.map((input) => input.requiresGrad),
      random: ['cpu', ...devices].map((device) => [device, rngBytes(device)] as const),
      autocast: autocastStates(),
    };
    context.saveForBackward(...inputs);
    return (body as Body)(...inputs);
  }

  static backward(context: FunctionContext, ...gradients: Tensor[]): Gradients {
    refuseChosenGradients();
    const { body, requiresGrad, random, autocast: states } = context.state as unknown as CheckpointState;
    const now = random.map(([device]) => [device, getRngState(device)] as const);
    const inputs = context.savedTensors.map((saved, i) => saved.detach().requiresGrad_(requiresGrad[i]!));
    for (const [device, state] of random) setRngState(state, device);
    let outputs: Tensor[];
    try {
      outputs = enableGrad(() => [withAutocast(states, () => body(...inputs))].flat());
    } finally {
      for (const [device, state] of now) setRngState(state, device);
    }
    const recorded = outputs
      .map((output, i) => [output, gradients[i]!] as const)
      .filter(([output]) => output.requiresGrad);
    if (recorded.length > 0) {
      backward(
        recorded.map(([output]) => output),
        recorded.map(([, gradient]) => gradient),
      );
    }
    return [null, null, ...inputs.map((input) => input.grad)];
  }
}

function refuseChosenGradients(): void {
  const problem = native().computesAllLeaves()
    ? isGradEnabled()
      ? 'createGraph'
      : undefined
    : 'torch.grad() or backward() with inputs';
  if (problem === undefined) return;
  throw new FmoeError(
    'ERR_AUTOGRAD',
    `checkpoint: cannot be used with ${problem}; call backward() without them`,
    {
      op: 'checkpoint',
    },
  );
}

interface CheckpointState {
  body: Body;
  requiresGrad: boolean[];
  random: (readonly [string, Uint8Array])[];
  autocast: AutocastState[];
}

/** A copy outside of every scope: the state must live until backward. */
function rngBytes(device: string): Uint8Array {
  const state = getRngState(device);
  const bytes = Uint8Array.from(state.data() as Uint8Array);
  state.dispose();
  return bytes;
}

function withAutocast<Result>(states: readonly AutocastState[], body: () => Result): Result {
  return states.reduce<() => Result>((inner, state) => () => autocast(state, inner), body)();
}
