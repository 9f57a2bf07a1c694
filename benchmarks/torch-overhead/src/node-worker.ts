/** The TypeScript side: reads `{"case": …, "iterations": …}` a line, answers with microseconds an iteration. */
import { createInterface } from 'node:readline';
import * as torch from '@fmoe/torch';
import { nn, optim } from '@fmoe/torch';
import type { Request, WorkerSettings } from './protocol.js';
import { transformerStep } from './transformer-step.js';

const settings = JSON.parse(process.argv[2]!) as WorkerSettings;
torch.setNumThreads(settings.threads);
torch.manualSeed(0);

const a = torch.ones([2, 2]);
const b = torch.ones([2, 2]);
const w = torch.ones([2, 2], { requiresGrad: true });

const cases = new Map<string, () => void>([
  ['add', () => a.add(b)],
  ['add-autograd', () => a.add(w)],
  ['mm', () => a.mm(b)],
]);

function mlpStep(): () => void {
  const model = new nn.Sequential(new nn.Linear(64, 128), new nn.ReLU(), new nn.Linear(128, 10));
  const optimizer = new optim.Adam(model.parameters(), { lr: 1e-3 });
  const x = torch.randn([64, 64]);
  const y = torch.randint(0, 10, [64]);
  return () =>
    torch.tidy(() => {
      const loss = nn.functional.crossEntropy(model.call(x) as torch.Tensor, y);
      optimizer.zeroGrad();
      loss.backward();
      optimizer.step();
    });
}

function run({ case: name, iterations, transformer }: Request): number {
  let step = cases.get(name);
  if (step === undefined) {
    step = transformer === undefined ? mlpStep() : transformerStep(transformer);
    cases.set(name, step);
  }
  const body = step;
  const start = process.hrtime.bigint();
  // Freeing what the iterations made belongs to the time, as it does in Python.
  torch.tidy(() => {
    for (let i = 0; i < iterations; i++) body();
  });
  return Number(process.hrtime.bigint() - start) / 1000 / iterations;
}

console.log(JSON.stringify({ torch: torch.libtorchVersion(), node: process.version }));
for await (const line of createInterface(process.stdin))
  console.log(JSON.stringify(run(JSON.parse(line) as Request)));
