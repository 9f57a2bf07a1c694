/** Shape letters: T segment length, B batch columns, b columns of one chunk. */
import type { ProcessGroup } from '@fmoe/comm';
import { collectBalanceLoss, readBalance } from '@fmoe/layers';
import { autocast, cat, FmoeError, keep, type optim, type Tensor, tidy, zeros } from '@fmoe/torch';
import type { Corpus, SplitName } from '../data/corpus.js';
import { type Batch, OrderedIterator } from '../data/ordered-iterator.js';
import type { Vocabulary } from '../data/vocabulary.js';
import { SegmentMemory } from '../transformer-xl/index.js';
import { buildOptimizer } from './build-optimizer.js';
import { CheckpointFolder, loadCheckpoint, saveCheckpoint, saveSharded } from './checkpoint/index.js';
import type { ResolvedConfig } from './config/index.js';
import { type Evaluation, evaluate } from './evaluate.js';
import type { LanguageModel } from './language-model.js';
import type { MetricRecord, MetricSink } from './metrics/index.js';
import { nextTurn } from './next-turn.js';
import { Schedule } from './schedule.js';
import { notFinite, StepRecorder } from './step-recorder.js';
import { Stopwatch } from './stopwatch.js';
import { TrainingRanks } from './training-ranks.js';

/** What a {@link Trainer} works on. */
export interface TrainerOptions {
  config: ResolvedConfig;
  corpus: Corpus;
  /** On `device` already. */
  model: LanguageModel;
  device: string;
  /** Folder of the checkpoints; made when the first one is saved. */
  checkpoints: string;
  /** Ranks that train together; the model was made with it. Default: this process alone. */
  group?: ProcessGroup | null;
  /** Receive what is measured; on the first rank only. */
  sinks?: readonly MetricSink[];
}

/** How a training ended. */
export interface TrainingResult {
  /** Whether all steps were done. */
  finished: boolean;
  /** Steps done. */
  step: number;
  /** Seconds spent in training steps. */
  seconds: number;
  /** Losses of the final model; absent when the run was interrupted. */
  valid?: Evaluation;
  test?: Evaluation;
}

/**
 * Trains a language model on a corpus: segments in order with a memory carried along, gradient accumulation over chunks of
 * the batch, clipping, schedule, evaluation, checkpoints. Everything that a step needs is part of a checkpoint, so that an
 * interrupted run goes on bit for bit.
 */
export class Trainer {
  readonly model: LanguageModel;
  readonly optimizer: optim.Optimizer;
  readonly checkpoints: CheckpointFolder;
  readonly #options: TrainerOptions;
  readonly #schedule: Schedule;
  readonly #iterator: OrderedIterator;
  readonly #memories: SegmentMemory[];
  readonly #recorder: StepRecorder;
  readonly #parameters: readonly Tensor[];
  readonly #noBalance: Tensor;
  readonly #ranks: TrainingRanks;
  /** This rank's columns of the batch. */
  readonly #columns: readonly [number, number];
  readonly #watch = new Stopwatch();
  #step = 0;
  /** Seconds and tokens up to the last record and since then, for the throughput. */
  #recordedSeconds = 0;
  #tokens = 0;
  #learningRate = 0;
  #bestLoss = Number.POSITIVE_INFINITY;
  /** Steps after which the model was last evaluated and saved. */
  #evaluated = 0;
  #saved = 0;
  /** The step that this run went on from, until it has saved something of its own. */
  #resumed: number | undefined;

  /** @throws FmoeError ERR_FILE when a part of the corpus is too short for its batch size */
  constructor(options: TrainerOptions) {
    this.#options = options;
    const { config, corpus, model, device } = options;
    const { training, logging } = config;
    this.model = model;
    this.optimizer = buildOptimizer(training.optimizer, model);
    this.checkpoints = new CheckpointFolder(options.checkpoints);
    this.#schedule = new Schedule(this.optimizer, training.schedule, training.steps);
    this.#iterator = new OrderedIterator(corpus.splits.train, {
      batchSize: training.batchSize,
      targetLength: training.tgtLen,
      extendedLength: model.extLen,
      device,
    });
    // An evaluation that cannot run is better known before the training than after it.
    const { batchSize, tgtLen: targetLength = training.tgtLen } = config.evaluation;
    for (const split of [corpus.splits.valid, corpus.splits.test]) {
      new OrderedIterator(split, { batchSize, targetLength });
    }
    this.#ranks = new TrainingRanks(options.group ?? null, model);
    this.#columns = this.#ranks.columnsOf(training.batchSize);
    // As many on each rank, whose layers meet in every chunk.
    const chunks = Math.min(training.batchChunk, Math.floor(training.batchSize / this.#ranks.size));
    this.#memories = Array.from({ length: chunks }, () => new SegmentMemory());
    this.#recorder = new StepRecorder(logging.every, device);
    this.#parameters = model.parameters();
    this.#noBalance = keep(zeros([], { device }));
  }

  get vocabulary(): Vocabulary {
    return this.#options.corpus.vocabulary;
  }

  get device(): string {
    return this.#options.device;
  }

  /** Numbers that the model learns, on all ranks together. */
  get parameterCount(): number {
    return this.#ranks.countParameters(this.model);
  }

  /** Steps done. */
  get step(): number {
    return this.#step;
  }

  /** Seconds spent in training steps. */
  get seconds(): number {
    return this.#watch.seconds;
  }

  /**
   * Trains until all steps are done or the signal comes, and saves a checkpoint then.
   *
   * @throws FmoeError ERR_RUNTIME naming the step at which the loss or the gradient was not finite
   */
  async train(signal?: AbortSignal): Promise<TrainingResult> {
    const { training, evaluation, checkpoint } = this.#options.config;
    this.model.train();
    const isStopping = (): boolean => this.#ranks.any(signal?.aborted ?? false);
    while (this.#step < training.steps && !isStopping()) {
      // A run that was interrupted while it was evaluated begins with that.
      if (this.#isDue(evaluation.every) && this.#evaluated !== this.#step) {
        const result = await this.#evaluate('valid', evaluation.maxSegments, signal);
        if (result === undefined) break;
        this.#useValidation(result);
      }
      if (this.#isDue(checkpoint.every) && this.#saved !== this.#step) this.save();
      this.#watch.start();
      this.trainStep();
      const pause = this.#isDue(evaluation.every) || this.#isDue(checkpoint.every);
      // Recording waits for the device, so it belongs to the time that the steps took.
      if (pause || this.#step === training.steps) this.#record();
      this.#watch.stop();
      await nextTurn();
    }
    if (isStopping()) return this.#interrupted();
    if (this.#saved !== this.#step) this.save();
    const valid = await this.#evaluate('valid', 0, signal);
    if (valid !== undefined) this.#useValidation(valid);
    const test = valid && (await this.#evaluate('test', 0, signal));
    if (valid === undefined || test === undefined) return this.#interrupted();
    this.save();
    return { finished: true, step: this.#step, seconds: this.seconds, valid, test };
  }

  /** One step: forward and backward of every chunk, clipping, the optimizer, the schedule; a record when one is due. */
  trainStep(): void {
    try {
      this.#forwardAndBackward();
    } catch (error) {
      // A router refuses logits that are not numbers, before there is a loss that could tell.
      if (!refusesLogits(error) && this.#isFinite()) throw error;
      throw notFinite('loss', Number.NaN, this.#step + 1, error);
    }
    this.#schedule.afterStep();
    this.#step += 1;
    if (this.#recorder.isFull) this.#record();
  }

  #isFinite(): boolean {
    return tidy(() => this.#parameters.every((parameter) => parameter.isfinite().all().item() === 1));
  }

  #forwardAndBackward(): void {
    const { clip, batchSize } = this.#options.config.training;
    this.#learningRate = this.optimizer.paramGroups[0]!.lr;
    tidy(() => {
      const batch = this.#iterator.next();
      this.#tokens += batch.target.numel();
      if (batch.first) for (const memory of this.#memories) memory.clear();
      this.optimizer.zeroGrad();
      const chunks = splitColumns(batch, this.#columns, this.#memories.length);
      const parts = chunks.map((part, chunk) => {
        const share = part.target.shape[1]! / batchSize;
        const balanceShare = this.#balanceShare(chunk) ?? share;
        const accumulate = () => this.#accumulate(part, this.#memories[chunk]!, share, balanceShare);
        return chunk < chunks.length - 1 ? this.#ranks.withoutCombining(accumulate) : accumulate();
      });
      const norm = this.#ranks.combineAndClip(this.#parameters, clip > 0 ? clip : Number.MAX_VALUE);
      this.optimizer.step();
      const [loss, balance] = parts.reduce(([a, b], [c, d]) => [a.add(c), b.add(d)]);
      this.#recorder.add(loss, balance, norm);
    });
  }

  /**
   * What a chunk's balance loss counts for where gates compute it over all ranks: it is the same one on each of them, whose mean
   * the gates expect. Undefined where it is the loss of this rank's tokens alone.
   */
  #balanceShare(chunk: number): number | undefined {
    const { model, training } = this.#options.config;
    if (model.moe?.gateOptions['globalBatch'] !== true) return undefined;
    const { size } = this.#ranks;
    let columns = 0;
    for (let rank = 0; rank < size; rank++) {
      const [from, to] = this.#ranks.columnsOf(training.batchSize, rank);
      columns += spanOfChunk(to - from, this.#memories.length, chunk)[1];
    }
    return columns / training.batchSize / size;
  }

  /** Adds the gradients of one chunk; returns its share of the loss and of the balance loss. */
  #accumulate(part: Batch, memory: SegmentMemory, share: number, balanceShare: number): [Tensor, Tensor] {
    const { precision, balanceWeight } = this.#options.config.training;
    const forward = () => this.model.call(part.data, part.target, memory.tensors);
    const { loss, mems } =
      precision === 'bfloat16-autocast'
        ? autocast({ device: this.#options.device.split(':')[0]!, dtype: 'bfloat16' }, forward)
        : forward();
    const mean = (loss.dtype === 'float64' ? loss : loss.float()).mean().mul(share);
    const balance = collectBalanceLoss(this.model)?.mul(balanceShare);
    const total = balance !== undefined && balanceWeight > 0 ? mean.add(balance.mul(balanceWeight)) : mean;
    total.backward();
    memory.replace(mems);
    return [mean, balance ?? this.#noBalance];
  }

  /** Saves a checkpoint of this step and removes old ones. Returns its folder. */
  save(): string {
    this.#record();
    const { config } = this.#options;
    const state = {
      step: this.#step,
      seconds: this.seconds,
      data: this.#iterator.state(),
      schedule: this.#schedule.stateDict(),
      evaluated: this.#evaluated,
      config,
    };
    const { model, optimizer } = this;
    const memories = this.#memories.map((memory) => memory.tensors);
    const { group, layout } = this.#ranks;
    const folder =
      group === null
        ? this.checkpoints.add(this.#step, (temporary) =>
            saveCheckpoint(temporary, state, { model, optimizer, memories }),
          )
        : this.checkpoints.addTogether(this.#step, group, (temporary) =>
            tidy(() =>
              saveSharded(
                temporary,
                state,
                { model, optimizer, memories: joinMemories(memories) },
                layout,
                group,
              ),
            ),
          );
    if (this.#ranks.isFirst) {
      if (this.#resumed !== undefined) this.checkpoints.abandon(this.#resumed, this.#step);
      this.checkpoints.prune(config.checkpoint.keep);
    }
    this.#resumed = undefined;
    this.#saved = this.#step;
    return folder;
  }

  /**
   * Goes on from a checkpoint.
   *
   * @param folder of the checkpoint
   * @throws FmoeError ERR_FILE when it is incomplete, cut off or not ours; ERR_STATE_DICT when it is of another model
   */
  restore(folder: string): void {
    const { device } = this.#options;
    const { model, optimizer } = this;
    const { rank, size, layout } = this.#ranks;
    const part = { layout, rank, ranks: size, columns: this.#columns };
    const { state, memories } = loadCheckpoint(folder, { model, optimizer, device }, part);
    this.#step = state.step;
    this.#saved = state.step;
    this.#resumed = state.step;
    this.#evaluated = state.evaluated;
    this.#watch.set(state.seconds);
    this.#recordedSeconds = state.seconds;
    const best = this.checkpoints.best();
    if (best !== undefined && best.step <= state.step) this.#bestLoss = best.loss;
    this.#iterator.restore(state.data);
    this.#schedule.loadStateDict(state.schedule);
    tidy(() => {
      const columns = this.#columns[1] - this.#columns[0];
      for (const [chunk, memory] of this.#memories.entries()) {
        const [from, width] = spanOfChunk(columns, this.#memories.length, chunk);
        memory.replace(memories.map((all) => all.narrow(1, from, width).clone()));
      }
    });
    for (const memory of memories) memory.dispose();
  }

  /** Frees everything that the trainer made; the model stays. */
  dispose(): void {
    for (const memory of this.#memories) memory.clear();
    this.#recorder.dispose();
    this.#ranks.dispose();
    this.#noBalance.dispose();
    this.optimizer.dispose();
  }

  #interrupted(): TrainingResult {
    this.save();
    return { finished: false, step: this.#step, seconds: this.seconds };
  }

  #isDue(every: number): boolean {
    const step = this.#step;
    return every > 0 && step > 0 && step % every === 0 && step < this.#options.config.training.steps;
  }

  /** Reports the steps since the last record. */
  #record(): void {
    const averages = this.#recorder.read(this.#step, (table) => this.#ranks.sum_(table));
    if (averages === undefined) return;
    this.#ranks.combineLoads(this.model);
    const balance = readBalance(this.model, { reset: true });
    // Read last: on a GPU the reads above wait for the steps to end.
    const seconds = this.seconds;
    this.#write({
      kind: 'train',
      step: this.#step,
      seconds,
      loss: averages.loss,
      ...(balance.length > 0 && { balanceLoss: averages.balanceLoss }),
      learningRate: this.#learningRate,
      gradientNorm: averages.gradientNorm,
      tokensPerSecond: this.#tokens / Math.max(seconds - this.#recordedSeconds, 1e-9),
      expertLoad: balance.map(({ counts }) => counts),
      ...(balance.length > 0 && {
        droppedShare: balance.map(({ droppedShare }) => droppedShare),
        routerEntropy: balance.map(({ routerEntropy }) => routerEntropy),
      }),
    });
    this.#recordedSeconds = seconds;
    this.#tokens = 0;
  }

  async #evaluate(
    split: SplitName,
    maxSegments: number,
    signal?: AbortSignal,
  ): Promise<Evaluation | undefined> {
    const { config, corpus, model, device } = this.#options;
    const tgtLen = config.evaluation.tgtLen ?? config.training.tgtLen;
    // Without a memory in training there is none in evaluation either.
    const memLen = model.memLen === 0 ? 0 : Math.max(0, model.memLen + config.training.tgtLen - tgtLen);
    const { batchSize } = config.evaluation;
    const options = { batchSize, tgtLen, memLen, device, maxSegments, signal, ranks: this.#ranks };
    const result = await evaluate(model, corpus.splits[split], options);
    if (result !== undefined) {
      this.#write({ kind: 'evaluation', step: this.#step, seconds: this.seconds, split, ...result });
    }
    return result;
  }

  #useValidation({ loss }: Evaluation): void {
    this.#schedule.afterEvaluation(loss);
    this.#evaluated = this.#step;
    if (loss >= this.#bestLoss) return;
    this.#bestLoss = loss;
    this.save();
    if (this.#ranks.isFirst) this.checkpoints.markBest(this.#step, loss);
  }

  #write(record: MetricRecord): void {
    for (const sink of this.#options.sinks ?? []) sink.write(record);
  }
}

/** Whether an error is a router's about its logits. */
function refusesLogits(error: unknown): boolean {
  return FmoeError.isInstance(error) && /logits hold nan/i.test(error.message);
}

/** Some columns of a batch in `chunks` parts of nearly equal width. */
function splitColumns(batch: Batch, [first, last]: readonly [number, number], chunks: number): Batch[] {
  const all = batch.target.shape[1]!;
  const columns = last - first;
  if (chunks === 1 && columns === all) return [batch];
  return Array.from({ length: chunks }, (_, chunk) => {
    const [from, width] = spanOfChunk(columns, chunks, chunk);
    const cut = (rows: Tensor): Tensor => rows.narrow(1, first + from, width).contiguous();
    return { ...batch, data: cut(batch.data), target: cut(batch.target) };
  });
}

/** The first column of a chunk, and how many it has. */
function spanOfChunk(columns: number, chunks: number, chunk: number): [from: number, width: number] {
  const from = Math.floor((chunk * columns) / chunks);
  return [from, Math.floor(((chunk + 1) * columns) / chunks) - from];
}

/** The memories `[M, B, D]` of each layer from those of the chunks. */
function joinMemories(chunks: readonly (readonly Tensor[])[]): Tensor[] {
  return (chunks[0] ?? []).map((_, layer) =>
    cat(
      chunks.map((tensors) => tensors[layer]!),
      1,
    ),
  );
}
