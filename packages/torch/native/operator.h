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

struct Operator {
  c10::OperatorHandle handle;
  std::vector<Parameter> parameters;
  std::vector<Result> results;
  bool callable = true;
};

}  // namespace fmoe
