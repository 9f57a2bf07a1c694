import { z } from 'zod';

const positive = z.int().min(1);
const count = z.int().min(0);
const rate = z.number().min(0);

const learningRate = { lr: z.number().gt(0).default(2.5e-4), weightDecay: rate.default(0) };
const adam = {
  ...learningRate,
  betas: z.tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)]).default([0.9, 0.999]),
  eps: z.number().gt(0).default(1e-8),
};

/** The optimizers, under the names that Transformer-XL's users know. */
export const optimizerSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('adam'), ...adam }),
  z.strictObject({ kind: z.literal('adamw'), ...adam }),
  z.strictObject({ kind: z.literal('sgd'), ...learningRate, momentum: rate.lt(1).default(0) }),
  z.strictObject({ kind: z.literal('adagrad'), ...learningRate }),
]);

const warmup = { warmupSteps: count.default(0) };

/** How the learning rate changes, after a linear warm-up. */
export const scheduleSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('constant'), ...warmup }),
  /** Half a cosine over all steps, down to `etaMin`. */
  z.strictObject({ kind: z.literal('cosine'), ...warmup, etaMin: rate.default(0) }),
  /** Falls with the square root of the step from the end of the warm-up on. */
  z.strictObject({ kind: z.literal('inv_sqrt'), warmupSteps: positive }),
  /** Multiplied by `decayRate` when the validation loss has not fallen for `patience` evaluations. */
  z.strictObject({
    kind: z.literal('dev_perf'),
    ...warmup,
    decayRate: z.number().gt(0).lt(1).default(0.5),
    patience: count.default(0),
    lrMin: rate.default(0),
  }),
]);

/** How the model is trained. */
export const trainingSchema = z.strictObject({
  steps: positive,
  /** Columns that the text is split into. */
  batchSize: positive,
  /** Parts that the columns of a step are computed in, one after the other, to save memory. */
  batchChunk: positive.default(1),
  /** Tokens of a segment, per column. */
  tgtLen: positive,
  /** Largest norm of the gradient; 0 leaves it as it is. */
  clip: rate.default(0.25),
  /** Weight of the MoE layers' balance losses in the loss. */
  balanceWeight: rate.default(0),
  /** Of parameters and arithmetic; `bfloat16-autocast` keeps the parameters in float32. */
  precision: z.enum(['float32', 'float64', 'bfloat16-autocast']).default('float32'),
  optimizer: optimizerSchema.prefault({ kind: 'adam' }),
  schedule: scheduleSchema.prefault({ kind: 'cosine' }),
});

/** How the model is evaluated. The memory is lengthened so that segment and memory together stay as in training. */
export const evaluationSchema = z.strictObject({
  /** Steps between evaluations; 0 evaluates at the end only. */
  every: count.default(4000),
  batchSize: positive.default(10),
  /** Tokens of a segment; as in training when left out. */
  tgtLen: positive.optional(),
  /** Most segments of an evaluation during training; 0 takes the whole validation part. */
  maxSegments: count.default(0),
});

/** What a run writes about itself. */
export const loggingSchema = z.strictObject({
  /** Steps between records. */
  every: positive.default(10),
  tensorboard: z.boolean().default(true),
});

/** When a run is saved. It is also saved at its end and when it is interrupted. */
export const checkpointSchema = z.strictObject({
  /** Steps between checkpoints; 0 saves at the end only. */
  every: count.default(1000),
  /** How many are kept. */
  keep: positive.default(2),
});
