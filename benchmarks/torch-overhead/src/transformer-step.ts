import { collectBalanceLoss } from '@fmoe/layers';
import { SegmentMemory, TransformerXL } from '@fmoe/models/transformer-xl';
import * as torch from '@fmoe/torch';
import { optim } from '@fmoe/torch';
import type { TransformerShape } from './protocol.js';

/** A training step with the same work as `training_step` of the PyTorch twin. */
export function transformerStep({ config, length, batch }: TransformerShape): () => void {
  const model = new TransformerXL({
    nToken: config.n_token,
    nLayer: config.n_layer,
    nHead: config.n_head,
    dModel: config.d_model,
    dHead: config.d_head,
    dInner: config.d_inner,
    memLen: config.mem_len,
    moe: config.num_expert > 0 ? { numExpert: config.num_expert, topK: config.top_k } : null,
  });
  const optimizer = new optim.Adam(model.parameters(), { lr: 1e-3 });
  const data = torch.randint(0, config.n_token, [length, batch]);
  const target = torch.randint(0, config.n_token, [length, batch]);
  const memory = new SegmentMemory();
  return () =>
    torch.tidy(() => {
      const { loss, mems } = model.forward(data, target, memory.tensors);
      memory.replace(mems);
      const balance = config.num_expert > 0 ? collectBalanceLoss(model) : null;
      const total = balance === null ? loss.mean() : loss.mean().add(balance.mul(config.balance_weight));
      optimizer.zeroGrad();
      total.backward();
      optimizer.step();
    });
}
