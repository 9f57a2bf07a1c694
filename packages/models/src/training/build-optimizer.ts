import { type nn, optim } from '@fmoe/torch';
import type { ResolvedConfig } from './config/index.js';

/** The optimizer of a configuration, over all parameters of a model. */
export function buildOptimizer(
  config: ResolvedConfig['training']['optimizer'],
  model: nn.Module,
): optim.Optimizer {
  const { kind, ...options } = config;
  const parameters = [...model.namedParameters()];
  switch (kind) {
    case 'adam':
      return new optim.Adam(parameters, options);
    case 'adamw':
      return new optim.AdamW(parameters, options);
    case 'sgd':
      return new optim.SGD(parameters, options);
    case 'adagrad':
      return new optim.Adagrad(parameters, options);
  }
}
