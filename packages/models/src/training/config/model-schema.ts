import { z } from 'zod';
import { namedGates } from '../../transformer-xl/index.js';
import { isPluginName } from '../plugins/plugin-name.js';

const positive = z.int().min(1);
const share = z.number().min(0).lt(1);

/** Turns the feed-forward of every layer into a Mixture-of-Experts. */
export const moeSchema = z
  .strictObject({
    numExpert: positive,
    topK: positive.default(2),
    /** The router: a name, such as `naive` (top-k of linear logits) or `noisy` (Shazeer et al. 2017), or `package#export`. */
    gate: z
      .string()
      .refine((gate) => Object.hasOwn(namedGates, gate) || isPluginName(gate), {
        error: `expected one of ${Object.keys(namedGates).join(', ')}, or package#export`,
      })
      .default('naive'),
    /** Further options of the router's constructor. */
    gateOptions: z.record(z.string(), z.json()).default({}),
    /** `package#export` of an expert's class in the place of the two-layer experts. */
    expert: z.string().refine(isPluginName, { error: 'expected package#export' }).optional(),
  })
  .refine((moe) => moe.topK <= moe.numExpert, {
    error: 'expected at most numExpert: a token cannot choose more experts than there are',
    path: ['topK'],
  });

/** Which model is trained; names as in Transformer-XL. */
export const modelSchema = z.discriminatedUnion('kind', [
  z
    .strictObject({
      kind: z.literal('transformer-xl'),
      nLayer: positive,
      nHead: positive,
      dModel: positive,
      /** Width of a head; dModel / nHead when left out. */
      dHead: positive.optional(),
      /** Width of the feed-forward; of one expert where `moe` is given. */
      dInner: positive,
      dropout: share.default(0),
      dropatt: share.default(0),
      /** Tokens of memory that a segment can look back on. */
      memLen: z.int().min(0),
      /** Tokens before the segment that are read again. */
      extLen: z.int().min(0).default(0),
      /** Normalise before attention and feed-forward instead of after them. */
      preLnorm: z.boolean().default(false),
      /** Let every position look back equally far. */
      sameLength: z.boolean().default(false),
      /** Treat greater distances as this one; -1 for no limit. */
      clampLen: z.int().min(-1).default(-1),
      /** Share one matrix between embedding and output layer. */
      tieWeight: z.boolean().default(true),
      initStd: z.number().gt(0).default(0.02),
      moe: moeSchema.optional(),
    })
    .refine((model) => model.dHead !== undefined || model.dModel % model.nHead === 0, {
      error: 'expected a divisor of dModel, where dHead is not given',
      path: ['nHead'],
    }),
]);
