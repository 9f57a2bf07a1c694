/**
 * What of the dispatcher's surface is not generated, and why. Everything stays reachable by `torch.op(name)`.
 */

/** Names that other code of this package gives, with semantics that a bare operator lacks. */
export const handWritten: Readonly<Record<string, string>> = {
  arange: 'factory: float32 unless a dtype is given',
  empty: 'factory',
  eye: 'factory',
  full: 'factory: float32 unless a dtype is given',
  linspace: 'factory',
  logspace: 'factory: reach it by op()',
  ones: 'factory',
  zeros: 'factory',
  rand: 'factory',
  randn: 'factory',
  randint: 'factory: float32 would be no index, so int64 by default',
  randperm: 'factory',
  range: 'deprecated in PyTorch: use arange',
  scalar_tensor: 'use tensor(number)',
  empty_strided: 'factory without use here',
  item: 'returns a number',
  to: 'takes a dtype, a device, or both',
  detach: 'kept by hand beside the other autograd methods',
  requires_grad_: 'kept by hand beside the other autograd methods',
  retain_grad: 'kept by hand beside the other autograd methods',
  retains_grad: 'no use without Python',
  is_leaf: 'a property',
  size: 'kept by hand: without an argument it is the shape',
  stride: 'kept by hand',
  numpy_T: 'written T',
  data: 'shares memory without history: detach() does that safely',
  set_data: 'used by Module.to only',
  set_: 'replaces a storage, which other handles may share',
  output_nr: 'no use without Python',
  to_dense: 'only strided tensors are supported',
  slice: 'the name of the index helper: at(slice(a, b)) slices',
};

/** Families of names, each as a pattern on the operator's name. */
export const families: readonly (readonly [RegExp, string])[] = [
  [/^_/, 'private to libtorch'],
  [/_backward(_|$)/, 'called by autograd'],
  [/_forward$|_jvp$|_double_backward/, 'called by autograd'],
  [/cudnn|miopen|mkldnn|nnpack|fbgemm|quantize|quantized|qint|xnnpack|vulkan|mps/, 'back-end detail'],
  [
    /sparse|coalesce|crow_indices|col_indices|ccol_indices|row_indices|is_coalesced|^indices|^values|^smm|^sspaddmm|^hspmm/,
    'only strided tensors are supported',
  ],
  [/^sym_|^is_same_size|^is_set_to|^record_stream|^rename|^refine_names|^align_|^names/, 'no use here'],
  [
    /_copy$|^(set|copy|zero|resize|resize_as|random|uniform|exponential|geometric|log_normal|cauchy|normal_functional)$/,
    'a variant made for functionalisation',
  ],
  [
    /^fake_|^choose_qparams|fused_moving_avg|^int_repr|^dequantize|q_scale|q_zero_point|q_per_channel|qscheme/,
    'quantisation',
  ],
  [
    /^fft_fftfreq|^fft_rfftfreq|^bartlett|^blackman|^hamming|^hann|^kaiser|^tril_indices|^triu_indices|^normed/,
    'factories without use here',
  ],
  [/^sum_to_size$|^unsafe_/, 'internal form of another operator'],
  [/^lift|^lift_fresh|^pin_memory|^is_pinned|^resize_|^rrelu_with_noise/, 'memory detail'],
  [/^cross_entropy_loss$/, 'given by nn with checks'],
  [/^(lstm|gru|rnn_)/, 'recurrent networks are out of scope'],
  [/^linalg_ldl|^linalg_lu_factor_ex|_ex$/, 'low-level form without checks'],
];

/** Overload names that never make part of the surface. */
export const overloadPatterns: readonly (readonly [RegExp, string])[] = [
  [/(^|_)out(_|$)/, 'writes into a tensor: use the in-place or the plain form'],
  [/names|Dimname/i, 'named tensors'],
  [/^generator|_generator/, 'the generator is an option of the plain form'],
  [/_symint$|deprecated|^gen_/, 'variant of another overload'],
];
