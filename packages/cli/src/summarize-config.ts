import type { ResolvedConfig } from '@fmoe/models/training';

/** A configuration in a few lines. */
export function summarizeConfig(config: ResolvedConfig): string {
  const { model, training, data } = config;
  const { moe } = model;
  const feedForward =
    moe === undefined
      ? `dense feed-forward ${model.dInner}`
      : `${moe.numExpert} experts ${moe.expert ?? `of ${model.dInner}`}, top-${moe.topK}, ${moe.gate} gate`;
  const { optimizer, schedule } = training;
  const source = data.kind === 'text' ? data.train : data.path;
  return [
    `model     ${model.kind}, ${model.nLayer} layers, d ${model.dModel}, ${model.nHead} heads, memory ${model.memLen}, ${feedForward}`,
    `data      ${data.kind}: ${source}`,
    `training  ${training.steps} steps of ${training.batchSize} x ${training.tgtLen} tokens, ${optimizer.kind} ${optimizer.lr}, ${schedule.kind} after ${schedule.warmupSteps} warm-up steps, ${training.precision}, seed ${config.seed}`,
  ].join('\n');
}
