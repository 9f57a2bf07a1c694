/**
 * Trains in a process of its own: train-child.ts <config.json> [resume] [kill step]. With a kill step the process kills
 * itself with SIGKILL in the middle of that step's forward pass.
 */
import { readFileSync } from 'node:fs';
import { resolveConfig, runTraining } from '../../src/training/index.js';

const [configFile, resume, killStep] = process.argv.slice(2);
const config = resolveConfig(JSON.parse(readFileSync(configFile!, 'utf8')));

const result = await runTraining(config, {
  resume: resume || undefined,
  atStart(trainer) {
    if (killStep === undefined) return;
    const layers = [...trainer.model.namedModules()].find(([name]) => name === 'layers.1');
    layers![1].registerForwardPreHook(() => {
      if (trainer.model.training && trainer.step === Number(killStep) - 1)
        process.kill(process.pid, 'SIGKILL');
    });
  },
});
process.stdout.write(JSON.stringify(result));
