/** The same inputs give the same bits, forward and backward. */

import * as torch from '@fmoe/torch';
import { describeEachDevice } from '@fmoe/torch/testing';
import { expect, it } from 'vitest';
import { assignPos, expertCount, pruneGateByCapacity } from '../../src/capacity.js';
import { combine } from '../../src/combine.js';
import { dispatch } from '../../src/dispatch.js';
import { groupedLinear } from '../../src/grouped-linear.js';
import { balanceLoss, importanceLoss, loadLoss, zLoss } from '../../src/losses.js';
import { moeMlp } from '../../src/moe-mlp.js';
import { routePlan } from '../../src/route-plan.js';
import { topkGate } from '../../src/topk-gate.js';
import { floatingDtypes } from '../support.js';

const repeats = 20;
const [tokens, choices, experts, width, hidden] = [601, 2, 9, 67, 33];

/** The bits of a tensor. */
function bits(tensor: torch.Tensor): Buffer {
  const { buffer, byteOffset, byteLength } = tensor
    .detach()
    .cpu()
    .flatten()
    .view('uint8')
    .data() as Uint8Array;
  return Buffer.from(buffer, byteOffset, byteLength);
}

describeEachDevice('repeated runs', (device) => {
  for (const dtype of floatingDtypes) {
    it(`of every operator and its backward in ${dtype} give the same bits`, () => {
      const threads = torch.getNumThreads();
      torch.setNumThreads(2);
      try {
        torch.tidy(() => {
          torch.manualSeed(1);
          const draw = (...shape: number[]) =>
            torch.randn(shape, { dtype: 'float64' }).mul(0.3).to({ dtype, device }).requiresGrad_();
          const x = draw(tokens, width);
          const logits = draw(tokens, experts);
          const [w1, b1] = [draw(experts, 2 * hidden, width), draw(experts, 2 * hidden)];
          const [w2, b2] = [draw(experts, width, hidden), draw(experts, width)];
          const deviation = logits.detach().abs().add(0.1);
          const noisy = logits.detach().add(deviation);
          const leaves = [x, logits, w1, b1, w2, b2];

          const run = () =>
            torch.tidy(() => {
              const gate = topkGate(logits, choices);
              const budget = torch.full([experts], 150, { dtype: 'int64', device });
              const topIdx = pruneGateByCapacity(gate.topIdx, budget);
              const counts = expertCount(topIdx, experts);
              const plan = routePlan(topIdx, experts);
              const fused = moeMlp(x, { w1, b1, w2, b2 }, gate.topScore, plan, 'swiglu');
              const rows = groupedLinear(dispatch(x, plan.rowSlot, plan.slotRow), w1, b1, plan.offsets);
              const inner = torch.silu(rows.narrow(1, 0, hidden));
              const composed = combine(
                groupedLinear(inner, w2, b2, plan.offsets),
                gate.topScore,
                plan.slotRow,
              );
              const losses = [
                balanceLoss(logits.softmax(1), counts),
                zLoss(logits),
                importanceLoss(topIdx, gate.topScore, experts),
                loadLoss(logits, noisy, deviation, choices),
              ];
              const outputs = [fused, composed, ...losses];
              const grads = torch.grad(outputs, leaves, {
                gradOutputs: outputs.map((output) => output.detach()),
              }) as torch.Tensor[];
              const integers = [gate.topIdx, topIdx, counts, assignPos(counts.cumsum(0), topIdx)];
              return [...integers, ...Object.values(plan), gate.topScore, ...outputs, ...grads].map(bits);
            });
          const first = run();
          for (let repeat = 1; repeat < repeats; repeat++) {
            run().forEach((result, i) => {
              expect(result.equals(first[i]!), `result ${i} of run ${repeat}`).toBe(true);
            });
          }
        });
      } finally {
        torch.setNumThreads(threads);
      }
    });
  }
});
