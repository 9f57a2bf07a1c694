/**
 * The formulas of the gates' papers in plain numbers, for tests. They share nothing with the gates but the logits and, where a
 * gate draws, the random numbers.
 *
 * Shape letters: T tokens, N all experts, K top-k.
 */
export type Matrix = number[][];

/** Experts and scores of each token, -1 for a dropped slot. */
export interface PlainChoice {
  topIdx: Matrix;
  topScore: Matrix;
}

export const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
export const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
export const sigmoid = (value: number): number => 1 / (1 + Math.exp(-value));
export const softmax = (values: readonly number[]): number[] => {
  const exps = values.map((value) => Math.exp(value - Math.max(...values)));
  return exps.map((value) => value / sum(exps));
};

/** A repeatable source of whole numbers from 0 below a bound (a linear congruential generator). */
export function randomBelow(seed: number): (bound: number) => number {
  let state = BigInt(seed);
  return (bound) => {
    state = (state * 6364136223846793005n + 1442695040888963407n) % 2n ** 64n;
    return Number((state >> 33n) % BigInt(bound));
  };
}

/** Positions of the k largest, the largest first; of equal ones the earlier first. */
export const largest = (values: readonly number[], k: number): number[] =>
  range(values.length)
    .sort((a, b) => values[b]! - values[a]! || a - b)
    .slice(0, k);

/** x W + b for W `[D, N]`. */
export const affine = (x: Matrix, weight: Matrix, bias: readonly number[] | null): Matrix =>
  x.map((row) =>
    weight[0]!.map((_, e) => sum(row.map((value, d) => value * weight[d]![e]!)) + (bias?.[e] ?? 0)),
  );

export const transpose = (matrix: Matrix): Matrix =>
  matrix[0]!.map((_, column) => matrix.map((row) => row[column]!));

// --- choices -----------------------------------------------------------------------------------------------------------

/** Top-k with the softmax over the chosen logits. */
export const topK = (logits: Matrix, k: number): PlainChoice => {
  const topIdx = logits.map((row) => largest(row, k));
  return { topIdx, topScore: topIdx.map((chosen, t) => softmax(chosen.map((e) => logits[t]![e]!))) };
};

export interface ScoreSettings {
  scoreFunction: 'softmax' | 'softmaxChosen' | 'sigmoid';
  normalize: boolean;
  scale?: number;
  bias?: number[];
  /** Experts that each token may choose; all where left out. */
  allowed?: boolean[][];
}

/** The scores of one token's experts before normalising, by which it chooses. */
export const rawScores = (
  row: number[],
  { scoreFunction }: Pick<ScoreSettings, 'scoreFunction'>,
): number[] =>
  scoreFunction === 'sigmoid' ? row.map(sigmoid) : scoreFunction === 'softmax' ? softmax(row) : row;

export const scoredTopK = (logits: Matrix, k: number, settings: ScoreSettings): PlainChoice => {
  const { scoreFunction, normalize, scale = 1, bias, allowed } = settings;
  const topIdx = logits.map((row, t) => {
    const keys = rawScores(row, settings).map((score, e) => score + (bias?.[e] ?? 0));
    return largest(
      keys.map((key, e) => (allowed && !allowed[t]![e] ? Number.NEGATIVE_INFINITY : key)),
      k,
    );
  });
  const topScore = topIdx.map((chosen, t) => {
    const scores = chosen.map((e) => rawScores(logits[t]!, settings)[e]!);
    if (scoreFunction === 'softmaxChosen') return softmax(scores).map((score) => score * scale);
    return scores.map((score) => (score * scale) / (normalize ? sum(scores) : 1));
  });
  return { topIdx, topScore };
};

/** Which experts a token may use when it has its best groups only. */
export const bestGroups = (
  logits: Matrix,
  settings: ScoreSettings & { numGroups: number; groupTopK: number; best: number },
): boolean[][] =>
  logits.map((row) => {
    const keys = rawScores(row, settings).map((score, e) => score + (settings.bias?.[e] ?? 0));
    const size = row.length / settings.numGroups;
    const worth = range(settings.numGroups).map((group) => {
      const members = keys.slice(group * size, (group + 1) * size).sort((a, b) => b - a);
      return sum(members.slice(0, settings.best));
    });
    const open = largest(worth, settings.groupTopK);
    return row.map((_, e) => open.includes(Math.floor(e / size)));
  });

/** Keeps the first `budget` slots of each expert: all first choices in token order, then all second ones … */
export const prune = (topIdx: Matrix, budget: (expert: number) => number): Matrix => {
  const used = new Map<number, number>();
  const kept = topIdx.map((row) => row.map(() => -1));
  for (const choice of range(topIdx[0]?.length ?? 0)) {
    topIdx.forEach((row, t) => {
      const expert = row[choice]!;
      if (expert < 0 || (used.get(expert) ?? 0) >= budget(expert)) return;
      used.set(expert, (used.get(expert) ?? 0) + 1);
      kept[t]![choice] = expert;
    });
  }
  return kept;
};

/** At most `limit` rows go to remote experts: those of the highest logits. */
export const topologyAware = (logits: Matrix, k: number, remote: boolean[], limit: number): PlainChoice => {
  const leaving = logits
    .flatMap((row, t) => largest(row, k).map((e, j) => ({ t, e, j, value: row[e]! })))
    .filter(({ e }) => remote[e])
    .sort((a, b) => b.value - a.value || a.t - b.t || a.j - b.j)
    .slice(0, limit);
  const open = logits.map((row, t) =>
    row.map((value, e) =>
      !remote[e] || leaving.some((slot) => slot.t === t && slot.e === e) ? value : Number.NEGATIVE_INFINITY,
    ),
  );
  return topK(open, k);
};

/** Choice by choice, token by token; a token that finds its bin full queues up for the first bin with room. Null: no bin. */
export const swipe = (logits: Matrix, k: number, binOf: (number | null)[]): PlainChoice => {
  const bins = Math.max(...binOf.map((bin) => bin ?? 0)) + 1;
  const room = range(bins).map(() => Math.ceil((logits.length * k) / bins));
  const has = logits.map((): number[] => []);
  const topIdx = logits.map((): number[] => []);
  for (let choice = 0; choice < k; choice++) {
    const bestOf = (t: number, fits: (e: number) => boolean) => {
      const candidates = range(binOf.length).filter((e) => fits(e) && !has[t]!.includes(e));
      return candidates.sort((a, b) => logits[t]![b]! - logits[t]![a]! || a - b)[0] ?? -1;
    };
    const bins_ = logits.map((_, t) => binOf[bestOf(t, () => true)] as number | null);
    const refused: number[] = [];
    bins_.forEach((bin, t) => {
      if (bin === null) return;
      if (room[bin]! > 0) room[bin]!--;
      else refused.push(t);
    });
    for (const t of refused) {
      const bin = room.findIndex((left) => left > 0);
      room[bin]!--;
      bins_[t] = bin;
    }
    logits.forEach((_, t) => {
      const expert = bestOf(t, (e) => binOf[e] === bins_[t]);
      topIdx[t]!.push(expert);
      if (expert >= 0) has[t]!.push(expert);
    });
  }
  const topScore = topIdx.map((row, t) =>
    softmax(row.map((e) => (e < 0 ? Number.NEGATIVE_INFINITY : logits[t]![e]!))),
  );
  return { topIdx, topScore };
};

/** The cells `[T, N]` that are chosen, with their scores; null where not. */
export type PlainCells = (number | null)[][];

/** Each expert takes its best `count` tokens. */
export const expertChoice = (logits: Matrix, count: number): PlainCells => {
  const scores = logits.map(softmax);
  const chosen = range(logits[0]!.length).map((e) =>
    largest(
      scores.map((row) => row[e]!),
      count,
    ),
  );
  return scores.map((row, t) => row.map((score, e) => (chosen[e]!.includes(t) ? score : null)));
};

/** Each expert's tokens rounded to tiles: its own first, by score, then the best of the others. */
export const tokenRounding = (
  logits: Matrix,
  k: number,
  settings: ScoreSettings,
  tile: number,
  round: (tiles: number) => number,
): PlainCells => {
  const { topIdx } = scoredTopK(logits, k, settings);
  const function_ = settings.scoreFunction === 'sigmoid' ? 'sigmoid' : 'softmax';
  const raw = logits.map((row) => rawScores(row, { scoreFunction: function_ }));
  const scores = raw.map((all, t) => {
    const own = sum(topIdx[t]!.map((e) => all[e]!));
    const divides = settings.normalize || settings.scoreFunction === 'softmaxChosen';
    return all.map((score) => (score * (settings.scale ?? 1)) / (divides ? own : 1));
  });
  const chosen = range(logits[0]!.length).map((e) => {
    const chose = topIdx.map((row) => row.includes(e));
    const order = range(logits.length).sort(
      (a, b) => Number(chose[b]) - Number(chose[a]) || raw[b]![e]! - raw[a]![e]! || a - b,
    );
    return order.slice(0, round(chose.filter(Boolean).length / tile) * tile);
  });
  return scores.map((row, t) => row.map((score, e) => (chosen[e]!.includes(t) ? score : null)));
};

// --- losses ------------------------------------------------------------------------------------------------------------

const columnMeans = (matrix: Matrix): number[] =>
  transpose(matrix).map((column) => sum(column) / column.length);

/** N · Σ f·P, f the experts' shares of the given choices. */
export const evenness = (choices: number[], probability: Matrix): number => {
  const numExpert = probability[0]!.length;
  const kept = choices.filter((e) => e >= 0);
  const shares = range(numExpert).map(
    (e) => kept.filter((other) => other === e).length / Math.max(kept.length, 1),
  );
  return numExpert * sum(columnMeans(probability).map((mean, e) => mean * shares[e]!));
};

/** var / mean², unbiased. */
export const squaredVariation = (values: number[]): number => {
  if (values.length === 1) return 0;
  const mean = sum(values) / values.length;
  return sum(values.map((value) => (value - mean) ** 2)) / (values.length - 1) / (mean ** 2 + 1e-10);
};

export const importance = ({ topIdx, topScore }: PlainChoice, numExpert: number): number[] =>
  range(numExpert).map((expert) =>
    sum(topIdx.flatMap((row, t) => row.map((e, j) => (e === expert ? topScore[t]![j]! : 0)))),
  );

export const balance = (kind: string, choice: PlainChoice, probability: Matrix): number => {
  if (kind === 'importance') return squaredVariation(importance(choice, probability[0]!.length));
  const choices = kind === 'switch' ? choice.topIdx.flat() : choice.topIdx.map((row) => row[0]!);
  return evenness(choices, probability);
};

export const zLoss = (logits: Matrix): number =>
  sum(logits.map((row) => Math.log(sum(row.map(Math.exp))) ** 2)) / logits.length;

/** Sigmoids divided by their sum. */
export const sigmoidShares = (row: number[]): number[] => {
  const scores = row.map(sigmoid);
  return scores.map((score) => score / sum(scores));
};
