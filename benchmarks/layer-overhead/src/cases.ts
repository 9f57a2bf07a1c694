/** Shape letters: T tokens, D model width, H hidden width, E experts, K top-k. */
import { moeMlp, routePlan } from '@fmoe/kernels';
import { collectBalanceLoss, FMoETransformerMLP, NaiveGate, type TokenRoute } from '@fmoe/layers';
import { noGrad, randn, type Tensor, tidy } from '@fmoe/torch';

/** What is measured. */
export interface Sizes {
  tokens: number;
  dModel: number;
  dHidden: number;
  numExpert: number;
  topK: number;
  dtype: 'float32' | 'bfloat16';
}

/** One forward pass, or a forward and a backward pass. */
export type Pass = 'forward' | 'training';

/** The work of each case, by name; `operator` is what the others are compared with. */
export function makeCases(sizes: Sizes, device: string): Record<string, (pass: Pass) => void> {
  const { tokens, dtype, ...options } = sizes;
  const place = { dtype, device } as const;
  const layer = new FMoETransformerMLP(options).to(place);
  const plain = new FMoETransformerMLP({
    ...options,
    gate: (gateOptions) => new NaiveGate({ ...gateOptions, balance: false }),
  }).to(place);
  const steps = new FMoETransformerMLP({ ...options, fused: false }).to(place);
  for (const other of [plain, steps]) other.loadStateDict(layer.stateDict());

  const x = randn([tokens, sizes.dModel], { ...place, requiresGrad: true });
  const weights = randn([tokens, sizes.dModel], place);
  const { htoh4, h4toh } = layer.experts;
  const mlp = { w1: htoh4.weight, b1: htoh4.bias, w2: h4toh.weight, b2: h4toh.bias };
  const route = noGrad(() => layer.eval().gate.forward(x) as TokenRoute);
  layer.train();
  const plan = routePlan(route.topIdx, sizes.numExpert);
  const score = route.topScore.requiresGrad_(true);

  const run = (forward: () => Tensor, more: () => Tensor | null) => (pass: Pass) =>
    tidy(() => {
      if (pass === 'forward') return void noGrad(forward);
      const loss = forward().mul(weights).sum();
      const balance = more();
      (balance ? loss.add(balance) : loss).backward();
      for (const module of [layer, plain, steps]) module.zeroGrad();
      x.grad = null;
      score.grad = null;
    });
  const ofLayer = (module: FMoETransformerMLP) =>
    run(
      () => module.call(x),
      () => collectBalanceLoss(module),
    );
  return {
    operator: run(
      () => moeMlp(x, mlp, score, plan),
      () => null,
    ),
    layer: ofLayer(layer),
    'layer-without-balance-loss': ofLayer(plain),
    steps: ofLayer(steps),
  };
}
