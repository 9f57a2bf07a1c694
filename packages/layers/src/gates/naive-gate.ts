import { LinearGate } from './router-gate.js';

/**
 * The K largest of linear logits; the score is the softmax over the K that were chosen. FastMoE's default gate.
 *
 * With `topK` 1 the score is always 1, and the router learns from the balance loss alone: `SwitchGate`, or `TopKGate` with
 * `normalize: false`, lets it learn from the task too.
 */
export class NaiveGate extends LinearGate {
  static override readonly optionNames: readonly string[] = super.optionNames;
}
