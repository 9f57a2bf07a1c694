import { seedBits } from '../check.js';
import { checkDevice } from '../devices/device.js';
import { native } from '../native/index.js';
import { guarded } from '../tensor/tensor-base.js';

/** A source of random numbers of its own, beside each device's default one. */
export class Generator {
  /** @internal */
  readonly id: number;
  readonly device: string;

  /** @param device where its numbers are drawn: `cpu`, `cuda:0` … */
  constructor(device = 'cpu') {
    this.device = checkDevice('Generator', device);
    this.id = guarded('Generator', () => native().newGenerator(device));
  }

  /** Starts the sequence of a seed (an integer of at most 64 bits). */
  manualSeed(seed: number | bigint): this {
    const bits = seedBits('Generator.manualSeed', seed);
    guarded('Generator.manualSeed', () => native().setSeed(this.id, bits));
    return this;
  }
}
