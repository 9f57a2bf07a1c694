import { readFileSync } from 'node:fs';
import * as torch from '../../src/index.js';
import type { Module } from '../../src/nn/index.js';
import * as nn from '../../src/nn/index.js';

/** A tensor as the fixture scripts write it: non-finite numbers are strings. */
export interface EncodedTensor {
  dtype: torch.DType;
  shape: number[];
  data: (number | string)[];
}

/** Reads a fixture: a list of cases. */
export function readFixture<Case>(name: string): Case[] {
  return JSON.parse(readFileSync(new URL(`../fixtures/${name}`, import.meta.url), 'utf8')) as Case[];
}

/** The tensor that a fixture holds, bit for bit. */
export function decode(encoded: EncodedTensor, device = 'cpu'): torch.Tensor {
  const { data, shape, dtype } = encoded;
  return torch.tidy(() => {
    const numbers = Float64Array.from(data, (value) => Number(String(value).replace('inf', 'Infinity')));
    return torch.fromTypedArray(numbers, shape).to({ dtype, device });
  });
}

export function isEncoded(value: unknown): value is EncodedTensor {
  return typeof value === 'object' && value !== null && 'data' in value && 'dtype' in value;
}

/** Makes a module of `nn` by its class's name; encoded tensors among its options are decoded. */
export function buildModule(kind: string, args: readonly unknown[], device = 'cpu'): Module {
  const Built = (nn as unknown as Record<string, new (...args: unknown[]) => Module>)[kind];
  if (!Built) throw new Error(`nn has no ${kind}`);
  return new Built(...args.map((argument) => decodeOptions(argument, device)));
}

function decodeOptions(argument: unknown, device: string): unknown {
  if (typeof argument !== 'object' || argument === null || Array.isArray(argument)) return argument;
  return Object.fromEntries(
    Object.entries(argument).map(([name, value]) => [name, isEncoded(value) ? decode(value, device) : value]),
  );
}

/** Loads encoded values into a module. */
export function loadEncoded(module: Module, state: Record<string, EncodedTensor>): void {
  torch.tidy(() => {
    const decoded = Object.entries(state).map(([name, value]) => [name, decode(value)] as const);
    module.loadStateDict(Object.fromEntries(decoded));
  });
}
