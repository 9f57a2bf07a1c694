/*
 * Operators that `op()` refuses, as data with reasons. libtorch calls its inner operators with arguments that it has checked
 * before; called directly with wrong ones they read and write outside of their tensors or divide by zero, which ends the
 * process. Every entry was found by calling all operators with wrong arguments (test/fuzz).
 */

const checkedForm = (name: string): string =>
  `it trusts its arguments blindly; use ${name}, which checks them`;
const otherBackEnd =
  'it belongs to a back end that this package does not use and trusts its arguments blindly';

const refused: readonly (readonly [RegExp, string])[] = [
  [/^(quantized|_quantized|mkldnn|mkldnn_prepacked|onednn|xnnpack|rngprims)::/, otherBackEnd],
  [/^aten::(_nnpack|quantized_|_dyn_quant|mkldnn_|_mkldnn|fbgemm_|_fw_primal)/, otherBackEnd],
  [/^(_c10d_functional|_c10d_functional_autograd|c10d|symm_mem)::/, "it needs libtorch's own process groups"],
  [
    /^aten::(native_batch_norm|_native_batch_norm_legit|_batch_norm_no_update|_batch_norm_with_update|_batch_norm_impl_index|batch_norm_)/,
    checkedForm('batch_norm'),
  ],
  [/^aten::(_convert_indices_from|choose_qparams|_choose_qparams)/, otherBackEnd],
  [/^aten::_\w+_backward/, checkedForm('the forward operator and backward()')],
  [/^aten::_thnn_/, 'recurrent cells are not supported'],
  [/^aten::_(add|remove)_batch_dim/, 'vmap is not supported'],
  [/^aten::_?(slow_conv|thnn_conv|conv_depthwise3d)/, checkedForm('conv2d, conv3d, conv_transpose2d …')],
  [/^aten::linalg_ldl_solve/, checkedForm('linalg_solve')],
  [/^aten::fractional_max_pool/, 'it takes its random samples as indices unchecked; use max_pool2d'],
  [/^aten::_?ctc_loss/, 'it takes its targets as indices unchecked'],
  [/^aten::_?segment_reduce/, 'it takes lengths and offsets unchecked; use scatter_reduce or index_add'],
  [
    /^aten::_(scaled_dot_product_(flash|efficient|cudnn|fused)|flash_attention|efficient_attention|cudnn_attention)/,
    checkedForm('scaled_dot_product_attention'),
  ],
  [/^aten::_nested_/, 'nested tensors are not supported'],
  [/^aten::_reshape_alias/, checkedForm('as_strided')],
  [/^aten::_sobol_engine/, 'quasi-random sequences are not supported'],
  [/^aten::_chunk_cat(\.|$)/, checkedForm('chunk and cat')],
  [/^aten::_linalg_eigvals/, checkedForm('linalg_eigvals')],
  [/^aten::_fft_/, checkedForm('fft_fft, fft_rfft …')],
  [/^aten::_foreach_copy(\.|$)/, checkedForm('_foreach_copy_')],
  [/^aten::native_channel_shuffle/, checkedForm('channel_shuffle')],
  [
    /^aten::from_file/,
    'a file that shrinks while it is mapped ends the process; use loadSafetensors or fromTypedArray',
  ],
  [/^aten::_stack(\.|$)/, checkedForm('stack')],
  [/^aten::_weight_norm/, checkedForm('norm and mul')],
  [/^aten::_pdist/, checkedForm('pdist')],
  [/^aten::(reflection|replication)_pad[123]d_backward/, checkedForm('pad and backward()')],
  [/^aten::embedding_dense_backward/, checkedForm('embedding and backward()')],
  [/^aten::_logcumsumexp/, checkedForm('logcumsumexp')],
  [/^aten::_new_zeros_with_same_feature_meta/, 'forward-mode gradients are not supported'],
  [/^aten::_\w+_helper/, checkedForm('the operator that it helps')],
  [/^aten::_transform_bias_rescale_qkv/, checkedForm('scaled_dot_product_attention')],
  [/^aten::align_tensors/, 'named tensors are not supported'],
];

/** Why an operator is refused, or undefined. */
export function refusal(name: string): string | undefined {
  return refused.find(([pattern]) => pattern.test(name))?.[1];
}
