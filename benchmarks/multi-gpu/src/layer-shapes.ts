/**
 * Shape letters: T tokens a rank, D model width, H hidden width of an expert, E experts a rank, K top-k, W ranks. The work of a rank
 * is the same for every W: its T·K rows, or as many from others.
 */

export interface LayerShape {
  name: string;
  /** T */
  tokens: number;
  /** D */
  dModel: number;
  /** H */
  dHidden: number;
  /** E */
  expertsPerRank: number;
  /** K */
  topK: number;
  dtype: 'float32' | 'bfloat16';
  /** Steps that are timed together. */
  steps: number;
}

/** How tokens choose experts: equally many for each by construction, or by a router on random tokens. */
export const routings = ['balanced', 'router'] as const;
export type Routing = (typeof routings)[number];

export interface LayerSettings {
  device: 'cpu' | 'cuda';
  shapes: LayerShape[];
  rounds: number;
}

const common = { expertsPerRank: 4, topK: 2 } as const;

export function layerSettings(device: 'cpu' | 'cuda', quick: boolean): LayerSettings {
  if (quick) {
    // In the dtype of GPUs everywhere, to go the way that they go.
    const tiny = {
      ...common,
      name: 'tiny',
      tokens: 64,
      dModel: 32,
      dHidden: 64,
      dtype: 'bfloat16',
      steps: 1,
    } as const;
    return { device, rounds: 2, shapes: [tiny] };
  }
  if (device === 'cpu') {
    const shape = { ...common, name: 'cpu', tokens: 1024, dModel: 256, dHidden: 1024, steps: 1 };
    return { device, rounds: 7, shapes: [{ ...shape, dtype: 'float32' }] };
  }
  const bf16 = { ...common, dtype: 'bfloat16' } as const;
  return {
    device,
    rounds: 15,
    shapes: [
      // That of FastMoE's paper (arXiv 2103.13262, section 5.3).
      { ...bf16, name: 'paper', tokens: 4096, dModel: 1024, dHidden: 4096, steps: 20 },
      { ...bf16, name: 'large', tokens: 16384, dModel: 2048, dHidden: 8192, steps: 5 },
    ],
  };
}

/** The experts' products of a step on one rank, backward included. */
export function expertFlops({ tokens, topK, dModel, dHidden }: LayerShape): number {
  return 3 * 2 * 2 * tokens * topK * dModel * dHidden;
}
