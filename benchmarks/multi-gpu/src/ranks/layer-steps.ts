/** Shape letters: T tokens a rank, D model width, N experts of all ranks, K top-k, L rows that arrive. */
import { type ProcessGroup, TokenExchange } from '@fmoe/comm';
import { combine, dispatch, routePlan } from '@fmoe/kernels';
import {
  type Choice,
  collectBalanceLoss,
  DistributedGroupedDataParallel,
  FMoETransformerMLP,
  LinearGate,
  type TokenRoute,
} from '@fmoe/layers';
import { arange, backward, randn, type Tensor, tidy, zeros } from '@fmoe/torch';
import type { LayerShape, Routing } from '../layer-shapes.js';
import type { PhaseClock } from './phase-clock.js';

/** FastMoE's default gate, which can be made to give all experts equally many tokens; that costs as much but for the top-k. */
class SwitchableGate extends LinearGate {
  routing: Routing = 'router';

  protected override choose(logits: Tensor, tokens: Tensor): Choice {
    if (this.routing === 'router') return super.choose(logits, tokens);
    const { topK, numExpert } = this;
    const slots = arange(logits.shape[0]! * topK, { dtype: 'int64', device: logits.device });
    const topIdx = slots.remainder(numExpert).view([-1, topK]);
    return { topIdx, topScore: logits.gather(1, topIdx).softmax(-1) };
  }
}

/** A layer with what a step of it needs. */
export interface LayerCase {
  layer: FMoETransformerMLP;
  /** Null on one rank, which has nothing to combine. */
  parallel: DistributedGroupedDataParallel | null;
  group: ProcessGroup | null;
  /** `[T, D]`, learning, so that its gradient is computed as inside a model. */
  x: Tensor;
  /** `[T, D]`, the gradient of the output. */
  gradient: Tensor;
  /** `[1]`, for ranks to wait for each other in the stream. */
  flag: Tensor;
}

export function makeCase(shape: LayerShape, group: ProcessGroup | null, device: string): LayerCase {
  const { tokens, dModel, dHidden, expertsPerRank, topK, dtype } = shape;
  const place = { dtype, device } as const;
  const layer = new FMoETransformerMLP({
    numExpert: expertsPerRank * (group?.size ?? 1),
    dModel,
    dHidden,
    topK,
    gate: SwitchableGate,
    moeGroup: group,
  }).to(place);
  return {
    layer,
    parallel: group && new DistributedGroupedDataParallel(layer, { groups: { dp: group } }),
    group,
    x: randn([tokens, dModel], { ...place, requiresGrad: true }),
    gradient: randn([tokens, dModel], place),
    flag: zeros([1], { dtype: 'float32', device }),
  };
}

export function setRouting({ layer }: LayerCase, routing: Routing): void {
  (layer.gate as SwitchableGate).routing = routing;
}

/** Forward, backward, and the gradients of all ranks. */
export function step({ layer, parallel, x, gradient }: LayerCase): void {
  tidy(() => {
    const y = layer.call(x);
    backwardOf(y, gradient, collectBalanceLoss(layer));
    parallel?.allreduceGradients();
    clear(layer, x);
  });
}

/**
 * The same, part by part, each with a graph of its own, so that the backward can be timed by parts as well. Ranks wait for each other
 * before they exchange, so that an exchange is not charged with the wait for the slowest one.
 */
export function stepByParts(one: LayerCase, clock: PhaseClock): void {
  tidy(() => {
    clock.start();
    if (one.layer.placement === null) partsOfOne(one, clock);
    else partsOfMany(one, clock);
    one.parallel?.allreduceGradients();
    clock.mark('sync');
    clear(one.layer, one.x);
  });
}

/** The largest difference between the two, relative to the largest value, in output and gradients of tokens and router. */
export function differenceOfParts(one: LayerCase, clock: PhaseClock): number {
  return tidy(() => {
    const { layer, parallel, x, gradient } = one;
    const collect = (run: () => Tensor): Tensor[] => {
      const y = run();
      parallel?.allreduceGradients();
      const results = [y, x.grad!, ...layer.gate.parameters().map((parameter) => parameter.grad!)];
      const copies = results.map((result) => result.detach().float().clone());
      clear(layer, x);
      return copies;
    };
    const whole = collect(() => {
      const y = layer.call(x);
      backwardOf(y, gradient, collectBalanceLoss(layer));
      return y;
    });
    clock.start();
    const parts = collect(() =>
      layer.placement === null ? partsOfOne(one, clock) : partsOfMany(one, clock),
    );
    const differences = whole.map((expected, i) => {
      const scale = Math.max(expected.abs().max().item(), 1e-30);
      return parts[i]!.sub(expected).abs().max().item() / scale;
    });
    return Math.max(...differences);
  });
}

function partsOfOne({ layer, x, gradient }: LayerCase, clock: PhaseClock): Tensor {
  const { topScore, plan, balance } = throughGate(layer, x);
  clock.mark('forward.gate');
  const [tokens, scores] = [cut(x), cut(topScore)];
  const y = layer.experts.runFused(tokens, scores, plan)!;
  clock.mark('forward.experts');
  y.backward(gradient);
  clock.mark('backward.experts');
  backwardOf(topScore, scores.grad!, balance);
  x.grad!.add_(tokens.grad!);
  clock.mark('backward.gate');
  return y;
}

function partsOfMany({ layer, group, x, gradient, flag }: LayerCase, clock: PhaseClock): Tensor {
  const wait = (phase: string): void => {
    group!.allReduce_(flag);
    clock.mark(phase);
  };
  const { topScore, plan, balance } = throughGate(layer, x);
  clock.mark('forward.gate');
  wait('forward.wait');
  const exchange = new TokenExchange(plan.counts, layer.placement!, group!);
  clock.mark('forward.counts');
  const tokens = cut(x);
  const leaving = dispatch(tokens, plan.rowSlot, plan.slotRow);
  clock.mark('forward.gate');
  wait('forward.wait');
  const sent = cut(leaving);
  const arrived = exchange.scatter(sent);
  clock.mark('forward.exchange');
  const rows = cut(arrived);
  const outputs = layer.experts.call(rows, exchange.offsets);
  clock.mark('forward.experts');
  wait('forward.wait');
  const returning = cut(outputs);
  const returned = exchange.gather(returning, plan.rowSlot.shape[0]);
  clock.mark('forward.exchange');
  const [back, scores] = [cut(returned), cut(topScore)];
  const y = combine(back, scores, plan.slotRow);
  clock.mark('forward.gate');

  y.backward(gradient);
  clock.mark('backward.gate');
  wait('backward.wait');
  returned.backward(back.grad!);
  clock.mark('backward.exchange');
  outputs.backward(returning.grad!);
  clock.mark('backward.experts');
  wait('backward.wait');
  arrived.backward(rows.grad!);
  clock.mark('backward.exchange');
  leaving.backward(sent.grad!);
  backwardOf(topScore, scores.grad!, balance);
  x.grad!.add_(tokens.grad!);
  clock.mark('backward.gate');
  return y;
}

function throughGate(layer: FMoETransformerMLP, x: Tensor) {
  const { topIdx, topScore, plan = routePlan(topIdx, layer.numExpert) } = layer.gate.call(x) as TokenRoute;
  layer.load.add(plan.counts, topIdx.numel());
  return { topScore, plan, balance: collectBalanceLoss(layer) };
}

/** Where one graph ends and the next begins. */
function cut(tensor: Tensor): Tensor {
  return tensor.detach().requiresGrad_(true);
}

function backwardOf(output: Tensor, gradient: Tensor, loss: Tensor | null): void {
  if (loss === null) output.backward(gradient);
  else backward([output, loss], [gradient, null]);
}

function clear(layer: FMoETransformerMLP, x: Tensor): void {
  layer.zeroGrad();
  x.grad = null;
}
