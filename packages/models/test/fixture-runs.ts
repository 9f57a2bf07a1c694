import { readFileSync } from 'node:fs';
import { collectBalanceLoss, NaiveGate } from '@fmoe/layers';
import { type DType, loadSafetensors, optim, type Tensor, tidy } from '@fmoe/torch';
import { SegmentMemory, TransformerXL, type TransformerXLOptions } from '../src/transformer-xl/index.js';

/** The settings of the PyTorch twin, in its spelling. */
export interface TwinConfig {
  n_token: number;
  n_layer: number;
  n_head: number;
  d_model: number;
  d_head: number;
  d_inner: number;
  mem_len: number;
  ext_len: number;
  dropout: number;
  dropatt: number;
  pre_lnorm: boolean;
  same_length: boolean;
  clamp_len: number;
  num_expert: number;
  top_k: number;
  balance_weight: number;
}

/** What one run of the twin recorded. */
export interface RecordedRun {
  losses: number[];
  balance: number[];
  gradNorms: Record<string, number>;
}

/** The content of `losses.json`. */
export interface Recording {
  steps: number;
  tgtLen: number;
  lr: number;
  seed: number;
  cases: {
    name: string;
    kind: 'dense' | 'moe';
    config: TwinConfig;
    runs: Record<'float64' | 'float32', RecordedRun>;
  }[];
}

const folder = new URL('./fixtures/transformer-xl/', import.meta.url);

/** The path of a fixture. */
export function fixturePath(name: string): string {
  return new URL(name, folder).pathname;
}

/** The recorded losses of all cases. */
export function readRecording(): Recording {
  return JSON.parse(readFileSync(new URL('losses.json', folder), 'utf8')) as Recording;
}

/** The twin's settings in ours. */
export function optionsOf(config: TwinConfig): TransformerXLOptions {
  return {
    nToken: config.n_token,
    nLayer: config.n_layer,
    nHead: config.n_head,
    dModel: config.d_model,
    dHead: config.d_head,
    dInner: config.d_inner,
    memLen: config.mem_len,
    extLen: config.ext_len,
    dropout: config.dropout,
    dropatt: config.dropatt,
    preLnorm: config.pre_lnorm,
    sameLength: config.same_length,
    clampLen: config.clamp_len,
    moe: config.num_expert > 0 ? { numExpert: config.num_expert, topK: config.top_k } : null,
  };
}

/** A model with given weights, in a dtype. */
export function loadedModel(config: TwinConfig, weightsPath: string, dtype: DType): TransformerXL {
  const model = new TransformerXL(optionsOf(config)).to(dtype);
  tidy(() => {
    model.loadStateDict(loadSafetensors(weightsPath).tensors);
  });
  return model;
}

/** The gates of a model, one per layer; none when it is dense. */
export function gatesOf(model: TransformerXL): NaiveGate[] {
  return model.modules().filter((module): module is NaiveGate => module instanceof NaiveGate);
}

/** What {@link trainSteps} is given. */
export interface TrainOptions {
  /** Token ids `[length, B]`. */
  stream: Tensor;
  steps: number;
  tgtLen: number;
  extLen: number;
  lr: number;
  balanceWeight: number;
  /** Experts to send the tokens to `[steps, layers, T, K]`, instead of the router's own choice. */
  routing?: Tensor | undefined;
}

/** What {@link trainSteps} recorded. */
export interface TrainTrace extends RecordedRun {
  /** The router's own choices, `[step][layer]`, row-major `[T, K]`. */
  choices: number[][][];
}

/** The twin's training run, in TypeScript: Adam, memory carried from step to step. */
export function trainSteps(model: TransformerXL, options: TrainOptions): TrainTrace {
  const { steps, tgtLen, extLen, stream, routing } = options;
  const optimizer = new optim.Adam(model.parameters(), { lr: options.lr });
  const memory = new SegmentMemory();
  const trace: TrainTrace = { losses: [], balance: [], gradNorms: {}, choices: [] };
  const gates = gatesOf(model);
  for (let step = 0; step < steps; step++) {
    tidy(() => {
      const seen = gates.map((gate, layer) => watchGate(gate, routing?.at(step, layer)));
      const start = extLen + step * tgtLen;
      const data = stream.narrow(0, start - extLen, tgtLen + extLen);
      const target = stream.narrow(0, start + 1, tgtLen);
      const output = model.call(data, target, memory.tensors);
      memory.replace(output.mems);
      const loss = output.loss.mean();
      const balance = collectBalanceLoss(model);
      optimizer.zeroGrad();
      (balance ? loss.add(balance.mul(options.balanceWeight)) : loss).backward();
      if (step === 0) {
        for (const [name, parameter] of model.namedParameters()) {
          trace.gradNorms[name] = parameter.grad!.norm().item();
        }
      }
      optimizer.step();
      trace.losses.push(loss.item());
      if (balance) trace.balance.push(balance.item());
      trace.choices.push(seen.map((watch) => watch()));
    });
  }
  memory.clear();
  return trace;
}

/**
 * Replaces a gate's choice for the next pass by the given experts `[T, K]`, or leaves it alone; the result reads what the
 * gate itself chose.
 */
function watchGate(gate: NaiveGate, forced: Tensor | undefined): () => number[] {
  let chosen: number[] = [];
  type Choice = { topIdx: Tensor; topScore: Tensor };
  const own = NaiveGate.prototype as unknown as { choose(logits: Tensor): Choice };
  Object.defineProperty(gate, 'choose', {
    configurable: true,
    enumerable: false,
    value(logits: Tensor): Choice {
      const choice = own.choose.call(gate, logits);
      chosen = Array.from(choice.topIdx.cpu().contiguous().data() as BigInt64Array, Number);
      if (forced === undefined) return choice;
      const topIdx = forced.to('int64');
      return { topIdx, topScore: logits.gather(-1, topIdx).softmax(-1) };
    },
  });
  return () => chosen;
}
