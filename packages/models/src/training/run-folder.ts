import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { FmoeError } from '@fmoe/torch';
import { restoreVocabulary } from '../data/restore-vocabulary.js';
import type { Vocabulary } from '../data/vocabulary.js';
import { writeWholeFile } from './atomic-write.js';
import { CheckpointFolder } from './checkpoint/index.js';
import { type ResolvedConfig, resolveConfig } from './config/index.js';

/** The folder of a run and the files in it. */
export class RunFolder {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** The folder that a configuration names. */
  static of(config: ResolvedConfig): RunFolder {
    return new RunFolder(join(config.runs, config.name));
  }

  get metrics(): string {
    return join(this.path, 'metrics.jsonl');
  }

  get tensorboard(): string {
    return join(this.path, 'tensorboard');
  }

  get checkpoints(): CheckpointFolder {
    return new CheckpointFolder(join(this.path, 'checkpoints'));
  }

  /** Whether a run was started here. */
  get isUsed(): boolean {
    return existsSync(this.#config);
  }

  /** Removes what an earlier run left. Other files in the folder stay. */
  clear(): void {
    for (const path of [this.#config, this.metrics, this.#vocabulary]) rmSync(path, { force: true });
    for (const path of [this.tensorboard, this.checkpoints.path])
      rmSync(path, { recursive: true, force: true });
  }

  /** Writes the resolved configuration and the vocabulary. */
  describe(config: ResolvedConfig, vocabulary: Vocabulary): void {
    mkdirSync(this.path, { recursive: true });
    writeWholeFile(this.#vocabulary, `${JSON.stringify(vocabulary)}\n`);
    writeWholeFile(this.#config, `${JSON.stringify(config, null, 2)}\n`);
  }

  /**
   * The configuration of the run.
   *
   * @throws FmoeError ERR_FILE when this is not the folder of a run
   */
  readConfig(): ResolvedConfig {
    return resolveConfig(this.#readJson(this.#config));
  }

  /**
   * The vocabulary of the run.
   *
   * @throws FmoeError ERR_FILE when this is not the folder of a run
   */
  readVocabulary(): Vocabulary {
    return restoreVocabulary(this.#readJson(this.#vocabulary));
  }

  /**
   * Checks that a configuration goes on with the run that is here.
   *
   * @throws FmoeError ERR_FILE when nothing can be resumed; ERR_CONFIG when the model, its data or the layout of a step
   *   was changed
   */
  checkResumable(config: ResolvedConfig): void {
    const before = this.readConfig();
    for (const part of ['model', 'data', 'seed'] as const) {
      if (!isDeepStrictEqual(plain(before[part]), plain(config[part]))) throw this.#changed(part);
    }
    // The optimizer's settings too: its state has them, and would win.
    for (const key of ['batchSize', 'batchChunk', 'tgtLen', 'optimizer', 'precision'] as const) {
      const [old, now] = [before.training[key], config.training[key]];
      if (!isDeepStrictEqual(plain(old), plain(now))) throw this.#changed(`training.${key}`);
    }
    if (before.training.schedule.kind !== config.training.schedule.kind)
      throw this.#changed('training.schedule.kind');
  }

  /**
   * Checks that data has the vocabulary that the run was trained with, whose numbers the model knows.
   *
   * @throws FmoeError ERR_FILE when it has another one
   */
  checkVocabulary(vocabulary: Vocabulary): void {
    if (isDeepStrictEqual(plain(this.readVocabulary()), plain(vocabulary))) return;
    throw new FmoeError(
      'ERR_FILE',
      `The data has other tokens than those that the run in ${this.path} was trained with. Was the corpus changed?`,
    );
  }

  get #config(): string {
    return join(this.path, 'config.json');
  }

  get #vocabulary(): string {
    return join(this.path, 'vocabulary.json');
  }

  #changed(key: string): FmoeError {
    return new FmoeError(
      'ERR_CONFIG',
      `'${key}' is not what the run in ${this.path} was started with. Set it back to resume, or start a run of another name.`,
    );
  }

  #readJson(path: string): unknown {
    try {
      return JSON.parse(readFileSync(path, 'utf8'));
    } catch (cause) {
      throw new FmoeError('ERR_FILE', `${this.path} is not the folder of a run: ${path} cannot be read.`, {
        cause,
      });
    }
  }
}

/** A value as it looks after a trip through JSON, which drops keys that are undefined. */
const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));
