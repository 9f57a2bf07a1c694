// A dispatcher operator that JavaScript has looked up: its schema in the form that call() reads.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <vector>

namespace fmoe {

// The kinds of argument that cross the boundary; the names are those of binding.ts.
enum class Kind : uint8_t {
  kTensor, kTensorList, kOptionalTensorList, kInt, kIntList, kFloat, kFloatList, kBool, kBoolList,
  kScalar, kScalarList, kString, kScalarType, kLayout, kMemoryFormat, kDevice, kGenerator, kUnsupported,
};

struct Parameter {
  Kind kind = Kind::kUnsupported;
  bool optional = false;
  std::optional<c10::IValue> fallback;  // the schema's default
  int32_t fixed_length = 0;             // of `int[2]`: one number stands for all
};

struct Result {
  Kind kind = Kind::kUnsupported;
  int32_t alias_of = -1;  // the argument that an in-place operator returns
};

// Forms of one or two tensors are the most frequent calls and the cheapest ones, so that boxing would be felt.
using Unary = c10::TypedOperatorHandle<at::Tensor(const at::Tensor&)>;
using Binary = c10::TypedOperatorHandle<at::Tensor(const at::Tensor&, const at::Tensor&)>;
using ScaledBinary = c10::TypedOperatorHandle<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Scalar&)>;

struct Operator {
  c10::OperatorHandle handle;
  std::vector<Parameter> parameters;
  std::vector<Result> results;
  bool callable = true;
  // At most one is set, where the schema and the registered C++ signature have this form.
  std::optional<Unary> unary = std::nullopt;
  std::optional<Binary> binary = std::nullopt;
  std::optional<ScaledBinary> scaled_binary = std::nullopt;
};

}  // namespace fmoe
