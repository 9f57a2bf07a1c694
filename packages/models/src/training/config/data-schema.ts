import { z } from 'zod';

const path = z.string().min(1);
const share = z.number().gt(0).lt(1);
const bytes = {
  path,
  heldOut: z.int().min(2).default(5_000_000),
  lineFeeds: z.enum(['drop', 'keep']).default('drop'),
};

/** Which corpus a run reads. Relative paths start at the folder of the configuration file. */
export const dataSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('text'), train: path, valid: path, test: path }),
  z.strictObject({
    kind: z.literal('text-file'),
    path,
    validShare: share.default(0.05),
    testShare: share.default(0.05),
  }),
  z.strictObject({ kind: z.literal('enwik8'), ...bytes }),
  z.strictObject({ kind: z.literal('text8'), ...bytes }),
  z.strictObject({ kind: z.literal('wikitext-103'), path }),
]);
