import { noGrad } from '../autograd/index.js';
import { FmoeError } from '../errors.js';
import { tidy } from '../scope.js';
import { type DType, dtypes, isDType, isFloatingPoint } from '../tensor/dtype.js';
import type { Tensor } from '../tensor/tensor.js';
import { show } from './check.js';
import { lazyOperator } from './lazy-operator.js';
import type { Module } from './module.js';

/** Where a module's tensors go: a dtype, a device, or both. */
export type ModuleTarget = DType | (string & {}) | { dtype?: DType; device?: string };

const setDataOperator = lazyOperator<[Tensor, Tensor], void>('aten::set_data');

/** Moves every tensor of the module, keeping each a single object: only the data behind it changes. */
export function moveModule(module: Module, target: ModuleTarget): void {
  const { dtype, device } = resolve(target);
  tidy(() =>
    noGrad(() => {
      for (const parameter of module.parameters()) {
        move(parameter, dtype, device);
        const grad = parameter.grad;
        if (grad) move(grad, dtype, device);
      }
      const isHalf = dtype === 'float16' || dtype === 'bfloat16';
      for (const each of module.modules()) {
        for (const [, buffer, { keepsPrecision }] of each.ownBuffers()) {
          move(buffer, keepsPrecision && isHalf ? undefined : dtype, device);
        }
      }
    }),
  );
}

function move(tensor: Tensor, dtype: DType | undefined, device: string | undefined): void {
  const newDtype = dtype !== undefined && isFloatingPoint(tensor.dtype) ? dtype : tensor.dtype;
  if (newDtype === tensor.dtype && (device === undefined || device === tensor.device)) return;
  const moved = tensor.detach().to({ dtype: newDtype, device: device ?? tensor.device });
  setDataOperator(tensor, moved);
}

function resolve(target: ModuleTarget): { dtype: DType | undefined; device: string | undefined } {
  const isName = typeof target === 'string';
  if (!isName && (typeof target !== 'object' || target === null)) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `Module.to: expected a dtype, a device or both, got ${show(target)}.`,
      {
        op: 'Module.to',
        argument: 'target',
      },
    );
  }
  const { dtype, device } = isName ? (isDType(target) ? { dtype: target } : { device: target }) : target;
  if (dtype !== undefined && !(isDType(dtype) && isFloatingPoint(dtype))) {
    throw new FmoeError(
      'ERR_DTYPE',
      `Module.to: a module can only become floating-point (${dtypes.filter(isFloatingPoint).join(', ')}), got ${show(dtype)}.`,
      { op: 'Module.to', argument: 'dtype', dtypes: [String(dtype)] },
    );
  }
  return { dtype, device };
}
