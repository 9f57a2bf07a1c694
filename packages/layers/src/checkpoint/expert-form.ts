/** Shape letters: E experts. */
import { cat, FmoeError, type nn, type Tensor } from '@fmoe/torch';
import { checkOneOf } from '../gates/check-options.js';

/** How a checkpoint holds the two-layer experts of a layer. */
export type ExpertForm =
  /** One tensor for all: `experts.htoh4.weight [E, H, D]`. */
  | 'fused'
  /** One module for each: `experts.0.htoh4.weight [1, H, D]`. */
  | 'perExpert';

const fusedKey = /^((?:.*\.)?experts)\.((?:htoh4|h4toh)\.(?:weight|bias))$/;
const perExpertKey = /^((?:.*\.)?experts)\.(\d+)\.((?:htoh4|h4toh)\.(?:weight|bias))$/;

/**
 * A state dict with the experts in one form; all else stays. Tensors that need no change are those of the argument.
 *
 * @throws FmoeError `ERR_STATE_DICT` when an expert's number is missing, or a tensor is not that of one expert; `ERR_ARGUMENT`
 * for another form.
 */
export function toExpertForm(state: nn.StateDict, form: ExpertForm): nn.StateDict {
  checkOneOf('toExpertForm', 'form', form, ['fused', 'perExpert']);
  return form === 'fused' ? fuse(state) : split(state);
}

function fuse(state: nn.StateDict): nn.StateDict {
  const result: nn.StateDict = {};
  const parts = new Map<string, Map<number, Tensor>>();
  for (const [key, tensor] of Object.entries(state)) {
    const match = perExpertKey.exec(key);
    if (!match) {
      result[key] = tensor;
      continue;
    }
    const [, prefix, index, name] = match as unknown as [string, string, string, string];
    const target = `${prefix}.${name}`;
    if (tensor.shape[0] !== 1)
      throw misfit(key, `is [${tensor.shape.join(', ')}], expected [1, ...]: one expert`);
    if (!parts.has(target)) parts.set(target, new Map());
    parts.get(target)?.set(Number(index), tensor);
  }
  for (const [key, byIndex] of parts) {
    const tensors = Array.from({ length: byIndex.size }, (_, index) => {
      const tensor = byIndex.get(index);
      if (tensor) return tensor;
      throw misfit(key, `has ${byIndex.size} experts, but none with the number ${index}`);
    });
    if (key in result) throw misfit(key, 'is there in both forms');
    result[key] = cat(tensors, 0);
  }
  return result;
}

function split(state: nn.StateDict): nn.StateDict {
  const result: nn.StateDict = {};
  for (const [key, tensor] of Object.entries(state)) {
    const match = fusedKey.exec(key);
    if (!match) {
      result[key] = tensor;
      continue;
    }
    const [, prefix, name] = match as unknown as [string, string, string];
    for (let index = 0; index < (tensor.shape[0] ?? 0); index++) {
      result[`${prefix}.${index}.${name}`] = tensor.narrow(0, index, 1);
    }
  }
  return result;
}

function misfit(key: string, problem: string): FmoeError {
  return new FmoeError('ERR_STATE_DICT', `toExpertForm: ${key} ${problem}.`, { op: 'toExpertForm' });
}
