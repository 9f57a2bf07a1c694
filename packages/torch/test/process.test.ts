import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import * as torch from '../src/index.js';
import { type ChildResult, runProgram, sources } from './support/children.js';

const fine = (result: ChildResult, stdout: string): void =>
  expect(result).toMatchObject({ code: 0, signal: null, stdout, stderr: '' });

const callbacks = `
  class Square extends torch.AutogradFunction {
    static forward(context, x) { context.saveForBackward(x); return x.mul(x); }
    static backward(context, gradient) { return gradient.mul(context.savedTensors[0]).mul(2); }
  }`;

describe('a process ends cleanly', () => {
  it.each([
    ['after work', 'console.log(torch.ones([2, 2]).mm(torch.ones([2, 2])).sum().item())', '8\n'],
    [
      'with live tensors, views and scopes',
      'const x = torch.ones([3]); x.t(); torch.scope(); globalThis.kept = torch.randn([9]); console.log(1)',
      '1\n',
    ],
    [
      'with memory that is lent both ways',
      'globalThis.a = torch.fromTypedArray(new Float32Array(100)); globalThis.b = torch.ones([100]).data(); console.log(2)',
      '2\n',
    ],
    [
      'with live graphs, hooks and functions of JavaScript',
      `${callbacks}
       const x = torch.ones([2], { requiresGrad: true });
       globalThis.y = Square.apply(x);
       x.registerHook(() => {});
       globalThis.z = torch.checkpoint((a) => Square.apply(a), x);
       console.log(3)`,
      '3\n',
    ],
    [
      'with a generator and grad mode off',
      'new torch.Generator().manualSeed(1); torch.setGradEnabled(false); console.log(4)',
      '4\n',
    ],
    [
      'through process.exit',
      `${callbacks} globalThis.y = Square.apply(torch.ones([1], { requiresGrad: true })); console.log(5); process.exit(0)`,
      '5\n',
    ],
    ['without ever using libtorch', 'console.log(typeof torch.zeros)', 'function\n'],
    [
      'after a failure of native code',
      'try { torch.zeros([-1]) } catch (error) { console.log(error.code) }',
      'ERR_SHAPE\n',
    ],
  ])('%s', async (_title, program, stdout) => {
    fine(await runProgram(program), stdout);
  });

  it('where libtorch is missing, with an error that says what to do', async () => {
    const caught = 'try { torch.zeros([1]) } catch (error) { console.log(error.code, error.message) }';
    const missing = await runProgram(`process.env.LIBTORCH = '/nowhere/at/all'; ${caught}`);
    expect([missing.code, missing.stderr]).toEqual([0, '']);
    expect(missing.stdout).toMatch(/^ERR_SETUP .*\/nowhere\/at\/all.*Remedy/s);
    const twice = await runProgram(
      `globalThis[Symbol.for('@fmoe/torch.binding')] = '/another/copy'; ${caught}`,
    );
    expect([twice.code, twice.stderr]).toEqual([0, '']);
    expect(twice.stdout).toMatch(/^ERR_SETUP two copies.*\/another\/copy and .*npm dedupe/);
  });

  it('with an uncaught error, and its exit code says so', async () => {
    const { code, signal, stderr } = await runProgram('torch.zeros([2]).mm(torch.zeros([3]))');
    expect([code, signal]).toEqual([1, null]);
    expect(stderr).toMatch(/FmoeError: aten::mm/);
  });
});

/** A Worker that runs the text of a module that may use `torch` and `parentPort`. */
function startWorker(text: string): Worker {
  // Flags of the process do not reach into Workers: TypeScript is switched on inside.
  const program = `
    import { parentPort } from 'node:worker_threads';
    import { register } from ${JSON.stringify(import.meta.resolve('tsx/esm/api'))};
    register();
    const torch = await import(${JSON.stringify(sources)});
    ${text}`;
  return new Worker(new URL(`data:text/javascript,${encodeURIComponent(program)}`), { execArgv: [] });
}

/** What a Worker posts last, and its exit code. */
function inWorker(text: string): Promise<{ message: unknown; code: number }> {
  return new Promise((resolve, reject) => {
    const worker = startWorker(text);
    let message: unknown;
    worker.on('message', (value) => {
      message = value;
    });
    worker.on('error', reject);
    worker.on('exit', (code) => resolve({ message, code }));
  });
}

describe('a Worker', () => {
  const compute = (seed: number) => `
    ${callbacks}
    torch.manualSeed(${seed});
    const x = torch.tensor([${seed}, 2], { requiresGrad: true });
    let sum = 0;
    for (let i = 0; i < 50; i++) {
      torch.tidy(() => {
        x.grad = null;
        Square.apply(x).sum().backward();
        sum += x.grad.sum().item();
      });
    }
    globalThis.kept = [Square.apply(x), torch.ones([5]).data(), torch.fromTypedArray(new Float32Array(3))];
    parentPort.postMessage([sum, torch.memory().scopes]);`;

  it('computes by itself, beside others and the main thread, and ends cleanly', async () => {
    torch.ones([2]).sum().dispose();
    const seeds = [1, 5, 9];
    const pending = Promise.all(seeds.map((seed) => inWorker(compute(seed))));
    for (let i = 0; i < 200; i++) {
      torch.tidy(() =>
        expect(
          torch
            .ones([8, 8])
            .mm(torch.ones([8, 8]))
            .sum()
            .item(),
        ).toBe(512),
      );
      await new Promise((resolve) => setImmediate(resolve));
    }
    // Σ 2x over both elements, fifty times.
    expect(await pending).toEqual(seeds.map((seed) => ({ message: [50 * (2 * seed + 4), 0], code: 0 })));
  });

  it('has errors of its own, and the main thread goes on', async () => {
    const { message } = await inWorker(`
      try { torch.zeros([2]).mm(torch.zeros([3])) } catch (error) { parentPort.postMessage([error.code, torch.FmoeError.isInstance(error)]) }`);
    expect(message).toEqual(['ERR_SHAPE', true]);
    expect(torch.tidy(() => torch.ones([2]).sum().item())).toBe(2);
  });

  it('may be ended in the middle of its work', async () => {
    const worker = startWorker(`
      const x = torch.randn([64, 64], { requiresGrad: true });
      x.registerHook(() => {});
      parentPort.postMessage('ready');
      for (;;) torch.tidy(() => x.mm(x).sum().backward());`);
    await new Promise((resolve) => worker.once('message', resolve));
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(await worker.terminate()).toBe(1);
    expect(torch.tidy(() => torch.ones([2]).sum().item())).toBe(2);
  });
});
