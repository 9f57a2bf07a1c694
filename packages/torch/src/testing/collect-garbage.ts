import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/**
 * Collects garbage and lets finalizers run, which they do between turns of the event loop only. A test that counts live
 * tensors across an `await` calls it before each count: otherwise what earlier tests dropped goes away in between.
 */
export async function collectGarbage(): Promise<void> {
  for (let round = 0; round < 4; round++) {
    collect();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
