// Parameters of one group that a fused operator can update in one call, with the lists of handles that the call takes.
// The lists are kept from step to step: as long as the same parameters have gradients, a step makes no list anew.
import { type HandleList, native } from '../native/index.js';
import { keep } from '../scope.js';
import type { Tensor } from '../tensor/tensor.js';
import { guarded, handlesOf, wrap } from '../tensor/tensor-base.js';
import { directUpdate, masterUpdate, type StandIns, stridedUpdate, usesMaster } from './master-weights.js';
import type { ParameterState, TensorSpec, UpdateLists } from './optimizer-types.js';

/** Where a batch finds or makes the state of its parameters. */
export interface StateSource {
  readonly state: Map<Tensor, ParameterState>;
  /** Names of the state tensors that the group's options ask for. */
  readonly keys: readonly string[];
  /** The first value of one of them, for a tensor of the shape, dtype and device of `prototype`. */
  create(key: string, prototype: TensorSpec): Tensor;
}

type Update = (lists: UpdateLists) => void;

/** Lists for the parameters that had gradients in a step. */
interface PreparedLists {
  /** Their positions in the batch. */
  readonly present: readonly number[];
  readonly standIns: StandIns;
  readonly state: Readonly<Record<string, HandleList>>;
}

/** Parameters of one dtype and layout on one device. */
export class ParameterBatch {
  readonly #params: readonly Tensor[];
  readonly #device: string;
  readonly #handles: HandleList;
  readonly #kind: 'direct' | 'strided' | 'master';
  #prepared: PreparedLists | undefined;

  constructor(params: readonly Tensor[], kind: 'direct' | 'strided' | 'master') {
    this.#params = params;
    this.#device = params[0]!.device;
    this.#handles = handlesOf(params);
    this.#kind = kind;
  }

  /**
   * Runs `update` once for all parameters that have gradients (or twice, where only some have state already). Expects that
   * autograd is off and a scope is open for what is made on the way.
   */
  step(source: StateSource, update: Update): void {
    const grads = guarded('step', () => native().gradients(this.#handles));
    const present: number[] = [];
    for (let i = 0; i < grads.length; i++) if (grads[i] !== 0) present.push(i);
    if (present.length === 0) return;
    const known = this.#prepared;
    if (known && sameIndices(known.present, present) && source.keys.every((key) => key in known.state)) {
      this.#run(known, grads, false, update);
      return;
    }
    const lacksState = (i: number): boolean => {
      const state = source.state.get(this.#params[i]!);
      return source.keys.some((key) => state?.[key] === undefined);
    };
    const fresh = present.filter(lacksState);
    const seasoned = present.filter((i) => !fresh.includes(i));
    if (seasoned.length > 0) this.#run(this.#prepare(source, seasoned), grads, false, update);
    if (fresh.length > 0) this.#run(this.#prepare(source, fresh), grads, true, update);
    this.#prepared = this.#prepare(source, present);
  }

  #prepare(source: StateSource, present: readonly number[]): PreparedLists {
    const params = present.map((i) => this.#params[i]!);
    const states = params.map((param) => {
      const state = source.state.get(param) ?? {};
      source.state.set(param, state);
      return state;
    });
    const standIns = this.#standIns(params, states);
    const listOf = (key: string): HandleList =>
      handlesOf(
        states.map((state, i) => {
          state[key] ??= keep(source.create(key, standIns.prototypes[i]!));
          return state[key];
        }),
      );
    const state = Object.fromEntries(source.keys.map((key) => [key, listOf(key)]));
    return { present, standIns, state };
  }

  #standIns(params: readonly Tensor[], states: readonly ParameterState[]): StandIns {
    if (this.#kind === 'master') return masterUpdate(params, states);
    return this.#kind === 'strided' ? stridedUpdate(params) : directUpdate(params);
  }

  #run(
    { present, standIns, state }: PreparedLists,
    grads: HandleList,
    isFirstStep: boolean,
    update: Update,
  ): void {
    const own = present.length === grads.length ? grads : Float64Array.from(present, (i) => grads[i]!);
    const targets = standIns.targets();
    const lists = { targets, grads: standIns.gradients(own), state, isFirstStep, device: this.#device };
    update({ ...lists, tensors: () => asTensors(lists) });
    standIns.writeBack(targets);
  }
}

function asTensors({
  targets,
  grads,
  state,
}: Omit<UpdateLists, 'tensors'>): ReturnType<UpdateLists['tensors']> {
  const tensors = (handles: HandleList): Tensor[] => Array.from(handles, wrap);
  const entries = Object.entries(state).map(([key, handles]) => [key, tensors(handles)] as const);
  return { targets: tensors(targets), grads: tensors(grads), state: Object.fromEntries(entries) };
}

function sameIndices(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Sorts parameters into batches that one call can update. */
export function makeBatches(params: readonly Tensor[], masterWeights: boolean): ParameterBatch[] {
  const batches = new Map<string, { params: Tensor[]; kind: 'direct' | 'strided' | 'master' }>();
  for (const param of params) {
    const direct = param.isContiguous() ? 'direct' : 'strided';
    const kind = usesMaster(param, masterWeights) ? 'master' : direct;
    const key = `${param.dtype} ${param.device} ${kind}`;
    const batch = batches.get(key);
    if (batch) batch.params.push(param);
    else batches.set(key, { params: [param], kind });
  }
  return [...batches.values()].map((batch) => new ParameterBatch(batch.params, batch.kind));
}
