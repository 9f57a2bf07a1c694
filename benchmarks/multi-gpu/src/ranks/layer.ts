/** One MoE layer with as many experts on every rank: prints nothing, leaves its figures. */
import { cuda, setNumThreads } from '@fmoe/torch';
import { type LayerSettings, type LayerShape, type Routing, routings } from '../layer-shapes.js';
import { differenceOfParts, type LayerCase, makeCase, setRouting, step, stepByParts } from './layer-steps.js';
import { phaseClock } from './phase-clock.js';
import { joinRanks } from './rank.js';

/** What a rank measured of one shape and routing. */
export interface LayerFigures {
  shape: LayerShape;
  routing: Routing;
  /** Milliseconds of a step, by round. `alone`: with its own experts only, at the same time as the other ranks but without them. */
  milliseconds: Record<'ranks' | 'alone' | 'aloneInSteps', number[]>;
  /** Milliseconds by part, by round. */
  parts: Record<string, number>[];
  /** Of the step by parts to the whole one, relative. */
  difference: number;
  peakMiB?: number;
}

const { settings, group, device, isGpu, leave, synchronize } = joinRanks<LayerSettings>();
setNumThreads(1);
const tolerance = { bfloat16: 3e-2, float32: 1e-4 };
const figures: LayerFigures[] = [];

function time(one: LayerCase, fused: boolean, steps: number): number {
  one.layer.fused = fused;
  group.barrier();
  synchronize();
  const begin = performance.now();
  for (let i = 0; i < steps; i++) step(one);
  synchronize();
  return (performance.now() - begin) / steps;
}

function measure(shape: LayerShape, routing: Routing, alone: LayerCase, together: LayerCase): LayerFigures {
  for (const one of [alone, together]) setRouting(one, routing);
  if (isGpu) cuda.resetPeakMemory();
  const clock = phaseClock(isGpu);
  const milliseconds: LayerFigures['milliseconds'] = { ranks: [], alone: [], aloneInSteps: [] };
  const parts: LayerFigures['parts'] = [];
  for (let round = -1; round < settings.rounds; round++) {
    const ranks = time(together, true, shape.steps);
    // Alone it is the same layer on one rank.
    const single = group.size === 1 ? ranks : time(alone, true, shape.steps);
    const inSteps = time(alone, false, shape.steps);
    alone.layer.fused = true;
    stepByParts(together, clock);
    const part = clock.read();
    // The first round warms up.
    if (round < 0) continue;
    milliseconds.ranks.push(ranks);
    milliseconds.alone.push(single);
    milliseconds.aloneInSteps.push(inSteps);
    parts.push(part);
  }
  const difference = differenceOfParts(together, clock);
  const peak = isGpu ? { peakMiB: Math.round(cuda.memoryStatistics().allocatedPeak / 2 ** 20) } : {};
  return { shape, routing, milliseconds, parts, difference, ...peak };
}

for (const shape of settings.shapes) {
  const alone = makeCase(shape, null, device);
  const together = group.size === 1 ? alone : makeCase(shape, group, device);
  for (const routing of routings) {
    const measured = measure(shape, routing, alone, together);
    figures.push(measured);
    leave(figures);
    if (measured.difference <= tolerance[shape.dtype]) continue;
    throw new Error(`${shape.name}: the step by parts differs from the whole one by ${measured.difference}`);
  }
}
group.barrier();
synchronize();
