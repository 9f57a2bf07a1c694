/**
 * The contract between TypeScript and the native addon: every function that `native/*.cpp` exports, in one place.
 *
 * A handle is a number that names a tensor in the addon's table; 0 stands for "no tensor". Lists of handles cross as
 * Float64Array. Nothing outside this package sees a handle.
 */
export type Handle = number;
export type HandleList = Float64Array;

/** An operator's schema as the dispatcher states it. */
export interface OperatorSchema {
  readonly id: number;
  /** Such as `aten::add`. */
  readonly name: string;
  /** Such as `Tensor`, or empty. */
  readonly overload: string;
  /** False when a required argument or a result has no JavaScript form. */
  readonly callable: boolean;
  readonly arguments: readonly ArgumentSchema[];
  readonly returns: readonly ReturnSchema[];
}

export interface ArgumentSchema {
  readonly name: string;
  /** In the schema language: `Tensor`, `int[]?`, `ScalarType?` … */
  readonly type: string;
  readonly hasDefault: boolean;
  readonly keywordOnly: boolean;
  readonly isOut: boolean;
  readonly isWrite: boolean;
  /** The N of `int[N]`, where one number may stand for all; else 0. */
  readonly fixedLength: number;
}

export interface ReturnSchema {
  readonly name: string;
  readonly type: string;
  /** The argument that an in-place operator gives back, or -1. */
  readonly aliasOf: number;
}

export interface MemoryStatistics {
  readonly allocated: number;
  readonly allocatedPeak: number;
  readonly reserved: number;
  readonly reservedPeak: number;
}

/** A value of the addon's that only the addon reads. */
declare const opaque: unique symbol;
export interface NativeStream {
  readonly [opaque]: 'stream';
}
export interface NativeEvent {
  readonly [opaque]: 'event';
}

/** What native code calls: lists of handles in, one list of handles out. */
export type NativeCallback = (...tensors: Handle[][]) => Handle[];

export interface NativeBinding {
  /** The libtorch that the addon was built against. */
  readonly torchVersion: string;
  /** One element, shared with the addon: the scope that new tensors join. */
  readonly activeScope: Int32Array;

  // schema.cpp, call.cpp
  findSchema(fullName: string): OperatorSchema | null;
  operatorNames(): string[];
  call(id: number, ...flatArguments: unknown[]): unknown;

  // tensor.cpp
  shape(tensor: Handle): number[];
  strides(tensor: Handle): number[];
  dtype(tensor: Handle): number;
  device(tensor: Handle): string;
  storageOffset(tensor: Handle): number;
  isContiguous(tensor: Handle): boolean;
  dataPointer(tensor: Handle): bigint;
  version(tensor: Handle): number;
  alias(tensor: Handle): Handle;
  release(tensor: Handle): boolean;
  isLive(tensor: Handle): boolean;
  moveToScope(tensor: Handle, scope: number): void;
  scopeOf(tensor: Handle): number;
  openScope(): number;
  closeScope(scope: number): number;
  /** Live tensors, tensors ever created, open scopes. */
  tableStatistics(): [number, number, number];

  // data.cpp
  fromBuffer(
    buffer: ArrayBuffer,
    byteOffset: number,
    byteLength: number,
    shape: readonly number[],
    dtype: number,
    copy: boolean,
  ): Handle;
  toBuffer(tensor: Handle): ArrayBuffer;
  toCpuAsync(tensor: Handle): Promise<Handle>;

  // autograd.cpp
  backward(
    outputs: HandleList,
    gradOutputs: HandleList,
    retainGraph: boolean,
    createGraph: boolean,
    inputs: HandleList,
  ): void;
  grad(
    outputs: HandleList,
    inputs: HandleList,
    gradOutputs: HandleList,
    retainGraph: boolean,
    createGraph: boolean,
    allowUnused: boolean,
  ): Handle[];
  requiresGrad(tensor: Handle): boolean;
  setRequiresGrad(tensor: Handle, requiresGrad: boolean): void;
  isLeaf(tensor: Handle): boolean;
  gradFunctionName(tensor: Handle): string | null;
  getGradient(tensor: Handle): Handle;
  setGradient(tensor: Handle, gradient: Handle): void;
  clearGradients(tensors: HandleList): void;
  gradients(tensors: HandleList): HandleList;
  retainGradient(tensor: Handle): void;
  registerHook(tensor: Handle, hook: NativeCallback): number;
  removeHook(tensor: Handle, key: number): void;
  attachFunction(
    inputs: HandleList,
    outputs: HandleList,
    saved: HandleList,
    nonDifferentiable: HandleList,
    dirty: HandleList,
    backward: NativeCallback,
  ): Handle[];
  setGradEnabled(enabled: boolean): boolean;
  isGradEnabled(): boolean;
  setPumpAlways(always: boolean): void;
  /** Inside a callback: false when the running backward computes chosen gradients only. */
  computesAllLeaves(): boolean;
  liveCallbacks(): number;

  // runtime.cpp
  newGenerator(device: string): number;
  setSeed(generator: string | number, seed: bigint): void;
  getSeed(generator: string | number): bigint;
  getRandomState(generator: string | number): Handle;
  setRandomState(generator: string | number, state: Handle): void;
  setNumThreads(threads: number): void;
  getNumThreads(): number;
  deviceCount(): number;
  currentDevice(): number;
  setDevice(index: number): void;
  synchronize(index: number): void;
  emptyCache(): void;
  memoryStatistics(index: number): MemoryStatistics;
  resetPeakMemory(index: number): void;
  newStream(index: number, highPriority: boolean): NativeStream;
  currentStream(index: number): NativeStream;
  setStream(stream: NativeStream): void;
  synchronizeStream(stream: NativeStream): void;
  queryStream(stream: NativeStream): boolean;
  newEvent(enableTiming: boolean): NativeEvent;
  recordEvent(event: NativeEvent, stream: NativeStream): void;
  waitEvent(event: NativeEvent, stream: NativeStream): void;
  synchronizeEvent(event: NativeEvent): void;
  queryEvent(event: NativeEvent): boolean;
  elapsedTime(start: NativeEvent, end: NativeEvent): number;
  enterAutocast(device: string, dtype: number): [wasEnabled: boolean, previousDtype: number];
  exitAutocast(device: string, wasEnabled: boolean, previousDtype: number): void;
  autocastState(device: string): number;

  // memory-limit.cpp
  setMemoryLimit(bytes: number): void;

  // profiler.cpp
  startProfiler(withCuda: boolean, recordShapes: boolean, profileMemory: boolean): void;
  stopProfiler(path: string): void;
}

/** What `native/loader.c` exports: opens a shared library, returns null or the loader's message. */
export interface NativeLoader {
  open(path: string): string | null;
}
