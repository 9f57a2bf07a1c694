/**
 * Calls operators with random wrong arguments. Runs in a process of its own, since what it looks for ends the process: the call
 * in progress stands in the log file. Prints what was counted as JSON.
 *
 *   node --import tsx main.ts surface|operators SEED ROUNDS EVERY LOG
 *
 * EVERY: take every n-th operator only.
 */
import { ftruncateSync, openSync, writeSync } from 'node:fs';
import { describeValue } from '../../src/describe.js';
import { camelCase } from '../../src/dispatch/op.js';
import { refusal } from '../../src/dispatch/unsafe-operators.js';
import { overloads } from '../../src/generated/overloads.js';
import * as torch from '../../src/index.js';
import { native, type OperatorSchema } from '../../src/native/index.js';
import { surfaceFunction } from '../../src/tensor/surface.js';
import { Dice, valueFor } from './values.js';

interface Target {
  name: string;
  schemas: OperatorSchema[];
  call: (...args: unknown[]) => unknown;
}

const schemaOf = (name: string): OperatorSchema => native().findSchema(name)!;

const kinds: Record<string, () => Target[]> = {
  surface: () =>
    Object.entries(overloads).map(([name, list]) => ({
      name,
      schemas: list.split(' ').map((overload) => schemaOf(`aten::${overload}`)),
      call: surfaceFunction(name),
    })),
  operators: () =>
    native()
      .operatorNames()
      .filter((name) => schemaOf(name).callable && refusal(name) === undefined)
      .map((name) => ({ name, schemas: [schemaOf(name)], call: (...args) => torch.op(name)(...args) })),
};

/** Arguments for one of the schemas: some by position, some by name, sometimes too many. */
function argumentsFor(dice: Dice, { arguments: parameters }: OperatorSchema): unknown[] {
  const args: unknown[] = [];
  for (const { type, keywordOnly, hasDefault } of parameters) {
    if (keywordOnly || (hasDefault && dice.chance(0.3))) break;
    args.push(valueFor(dice, type));
  }
  if (dice.chance(0.3)) {
    const options: Record<string, unknown> = {};
    for (const { name, type, hasDefault } of parameters.slice(args.length)) {
      if (!hasDefault || dice.chance(0.5)) options[camelCase(name)] = valueFor(dice, type);
    }
    args.push(options);
  }
  if (dice.chance(0.03)) args.push(5);
  return args;
}

const show = (value: unknown): string =>
  Array.isArray(value) ? `[${value.map(show).join(', ')}]` : describeValue(value);

const [kind, seed, rounds, every, log] = process.argv.slice(2) as [string, string, string, string, string];
const file = openSync(log, 'w');
const counts = { calls: 0, succeeded: 0, refused: 0 };
const foreign: string[] = [];

kinds[kind]!().forEach(({ name, schemas, call }, index) => {
  if (index % Number(every) !== 0) return;
  for (let round = 0; round < Number(rounds); round++) {
    const dice = new Dice(Number(seed) * 7919 + index * 104_729 + round * 15_485_863);
    torch.tidy(() => {
      const args = argumentsFor(dice, dice.pick(schemas));
      const text = `${name}(${args.map(show).join(', ')})`;
      ftruncateSync(file, 0);
      writeSync(file, text, 0);
      counts.calls++;
      try {
        const results = [call(...args)].flat();
        counts.succeeded++;
        for (const result of results)
          if (result instanceof torch.Tensor && !result.isDisposed) String(result);
      } catch (error) {
        if (torch.FmoeError.isInstance(error) && error.message !== '') counts.refused++;
        else foreign.push(`${text}: ${String(error)}`);
      }
    });
  }
});

torch.tidy(() => torch.ones([2]).sum().item());
console.log(
  JSON.stringify({ ...counts, foreign, tensors: torch.memory().tensors, scopes: torch.memory().scopes }),
);
