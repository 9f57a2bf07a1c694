import { commOperator } from '../load.js';
import { NativeGroup } from './native-group.js';
import type { ProcessGroup } from './process-group.js';

/**
 * The group of one process. Code written for many ranks runs on it unchanged, with the same checks of its arguments.
 */
export class LocalGroup extends NativeGroup {
  readonly backend = 'local';

  constructor(name = 'local') {
    super(commOperator('make_local_group')(name) as number);
  }

  override split(color: number | null, _key = 0, name = `${this.name}/split`): ProcessGroup | null {
    return color === null ? null : new LocalGroup(name);
  }
}
