// The one path by which JavaScript calls an operator: call(id, ...arguments).
//
// Arguments cross flat, in schema order. A tensor is its handle; a list of numbers is its length followed by its
// elements; a list of tensors is a Float64Array of handles; a dtype is its ScalarType code; a device is a string.
// `undefined` (or a missing argument) takes the schema's default, `null` is None.
#include <ATen/core/Generator.h>
#include <ATen/core/stack.h>

#include <cmath>

#include "addon.h"
#include "errors.h"
#include "operator.h"

namespace fmoe {

const at::Generator& generator_at(uint32_t id);  // runtime.cpp

namespace {

constexpr size_t kInlineArguments = 48;
constexpr int64_t kMaxSafeInteger = 9007199254740991;  // of a JavaScript number

[[noreturn]] void reject(const Operator& op, size_t index, const std::string& expected) {
  const auto& argument = op.handle.schema().arguments()[index];
  throw std::invalid_argument("argument '" + argument.name() + "' (number " + std::to_string(index + 1) + ", " +
                              argument.real_type()->str() + "): " + expected);
}

class ArgumentReader {
 public:
  ArgumentReader(Addon& addon, const Operator& op, const napi_value* values, size_t count)
      : addon_(addon), env_(addon.env), op_(op), values_(values), count_(count) {}

  void read_all(torch::jit::Stack& stack) {
    for (index_ = 0; index_ < op_.parameters.size(); ++index_) read(stack, op_.parameters[index_]);
    if (next_ < count_) {
      throw std::invalid_argument("too many arguments: the operator takes " + std::to_string(op_.parameters.size()));
    }
  }

 private:
  void read(torch::jit::Stack& stack, const Parameter& parameter) {
    const napi_value value = next_ < count_ ? values_[next_++] : nullptr;
    // The common case first, without asking for the type.
    double number = 0;
    if (parameter.kind == Kind::kTensor && value && napi_get_value_double(env_, value, &number) == napi_ok) {
      stack.emplace_back(addon_.table.get(number));
      return;
    }
    napi_valuetype type = napi_undefined;
    if (value) napi_typeof(env_, value, &type);
    if (type == napi_undefined) {
      if (parameter.fallback) {
        stack.push_back(*parameter.fallback);
      } else if (parameter.optional) {
        stack.emplace_back();
      } else {
        reject(op_, index_, "is required");
      }
      return;
    }
    if (type == napi_null) {
      if (!parameter.optional) reject(op_, index_, "may not be null");
      stack.emplace_back();
      return;
    }
    switch (parameter.kind) {
      case Kind::kTensor: reject(op_, index_, "expected a tensor");
      case Kind::kTensorList: stack.emplace_back(tensors(value)); return;
      case Kind::kOptionalTensorList: stack.emplace_back(optional_tensors(value)); return;
      case Kind::kInt:
      case Kind::kScalarType:
      case Kind::kLayout:
      case Kind::kMemoryFormat: stack.emplace_back(integer(value)); return;
      case Kind::kFloat: stack.emplace_back(real(value)); return;
      case Kind::kBool: stack.emplace_back(boolean(value)); return;
      case Kind::kScalar: stack.emplace_back(scalar(value)); return;
      case Kind::kString: stack.emplace_back(text(value)); return;
      case Kind::kDevice: stack.emplace_back(c10::Device(text(value))); return;
      case Kind::kGenerator: stack.emplace_back(generator_at(static_cast<uint32_t>(integer(value)))); return;
      case Kind::kIntList: stack.emplace_back(list<int64_t>(value, parameter, &ArgumentReader::size)); return;
      case Kind::kFloatList: stack.emplace_back(list<double>(value, parameter, &ArgumentReader::real)); return;
      case Kind::kBoolList: stack.emplace_back(list<bool>(value, parameter, &ArgumentReader::boolean)); return;
      case Kind::kScalarList: stack.emplace_back(list<at::Scalar>(value, parameter, &ArgumentReader::scalar)); return;
      case Kind::kUnsupported: reject(op_, index_, "this type cannot be given from JavaScript; leave it out");
    }
  }

  int64_t integer(napi_value value) {
    double number = 0;
    if (napi_get_value_double(env_, value, &number) == napi_ok) {
      if (std::trunc(number) != number || std::abs(number) > 9007199254740991.0) {
        reject(op_, index_, "expected an integer, got " + std::to_string(number));
      }
      return static_cast<int64_t>(number);
    }
    int64_t big = 0;
    bool lossless = false;
    if (napi_get_value_bigint_int64(env_, value, &big, &lossless) == napi_ok && lossless) return big;
    bool flag = false;
    if (napi_get_value_bool(env_, value, &flag) == napi_ok) return flag;
    reject(op_, index_, "expected an integer");
  }

  // Sizes, strides and paddings are added and multiplied without regard to overflow.
  int64_t size(napi_value value) {
    const int64_t result = integer(value);
    if (result > kMaxSafeInteger || result < -kMaxSafeInteger) {
      reject(op_, index_, "expected integers up to 2^53, got " + std::to_string(result));
    }
    return result;
  }

  double real(napi_value value) {
    double number = 0;
    if (napi_get_value_double(env_, value, &number) == napi_ok) return number;
    int64_t big = 0;
    bool lossless = false;
    if (napi_get_value_bigint_int64(env_, value, &big, &lossless) == napi_ok) return static_cast<double>(big);
    reject(op_, index_, "expected a number");
  }

  bool boolean(napi_value value) {
    bool flag = false;
    if (napi_get_value_bool(env_, value, &flag) == napi_ok) return flag;
    reject(op_, index_, "expected true or false");
  }

  // JavaScript has no 1.0: an integral number is an integer, so that integer tensors stay integer.
  at::Scalar scalar(napi_value value) {
    double number = 0;
    if (napi_get_value_double(env_, value, &number) == napi_ok) {
      const bool integral = std::trunc(number) == number && std::abs(number) <= 9007199254740991.0 &&
                            !(number == 0 && std::signbit(number));
      return integral ? at::Scalar(static_cast<int64_t>(number)) : at::Scalar(number);
    }
    bool flag = false;
    if (napi_get_value_bool(env_, value, &flag) == napi_ok) return at::Scalar(flag);
    int64_t big = 0;
    bool lossless = false;
    if (napi_get_value_bigint_int64(env_, value, &big, &lossless) == napi_ok && lossless) return at::Scalar(big);
    reject(op_, index_, "expected a number, a bigint within int64, or a boolean");
  }

  std::string text(napi_value value) {
    size_t length = 0;
    if (napi_get_value_string_utf8(env_, value, nullptr, 0, &length) != napi_ok) {
      reject(op_, index_, "expected a string");
    }
    std::string result(length, '\0');
    napi_get_value_string_utf8(env_, value, &result[0], length + 1, &length);
    return result;
  }

  template <typename Element>
  c10::List<Element> list(napi_value length, const Parameter& parameter, Element (ArgumentReader::*element)(napi_value)) {
    double size = 0;
    if (napi_get_value_double(env_, length, &size) != napi_ok || size < 0 || next_ + size > count_) {
      reject(op_, index_, "expected an array");
    }
    c10::List<Element> result;
    const auto total = static_cast<size_t>(size);
    check_length(parameter, total);
    result.reserve(total);
    for (size_t i = 0; i < total; ++i) result.push_back((this->*element)(values_[next_++]));
    while (total == 1 && result.size() < static_cast<size_t>(parameter.fixed_length)) result.push_back(result.get(0));
    return result;
  }

  // Kernels read the elements of `int[6]` unchecked. One stands for all, and where the default is empty, so may be none.
  void check_length(const Parameter& parameter, size_t length) const {
    const auto expected = static_cast<size_t>(parameter.fixed_length);
    if (expected < 2 || length == expected || length == 1) return;
    const auto& fallback = parameter.fallback;
    if (length == 0 && fallback && fallback->isList() && fallback->toListRef().empty()) return;
    reject(op_, index_, "expected " + std::to_string(expected) + " numbers, got " + std::to_string(length));
  }

  const double* handles(napi_value value, size_t& length) {
    napi_typedarray_type type = napi_uint8_array;
    void* data = nullptr;
    bool is_typed = false;
    napi_is_typedarray(env_, value, &is_typed);
    if (is_typed) napi_get_typedarray_info(env_, value, &type, &length, &data, nullptr, nullptr);
    if (!is_typed || type != napi_float64_array) reject(op_, index_, "expected an array of tensors");
    return static_cast<const double*>(data);
  }

  c10::List<at::Tensor> tensors(napi_value value) {
    size_t length = 0;
    const double* data = handles(value, length);
    c10::List<at::Tensor> result;
    result.reserve(length);
    for (size_t i = 0; i < length; ++i) result.push_back(addon_.table.get(data[i]));
    return result;
  }

  c10::List<std::optional<at::Tensor>> optional_tensors(napi_value value) {
    size_t length = 0;
    const double* data = handles(value, length);
    c10::List<std::optional<at::Tensor>> result;
    result.reserve(length);
    for (size_t i = 0; i < length; ++i) {
      result.push_back(data[i] == 0 ? std::nullopt : std::make_optional(addon_.table.get(data[i])));
    }
    return result;
  }

  Addon& addon_;
  napi_env env_;
  const Operator& op_;
  const napi_value* values_;
  size_t count_;
  size_t next_ = 0;   // the next JavaScript value
  size_t index_ = 0;  // the parameter being read
};

napi_value number_to_js(napi_env env, double number) {
  napi_value result = nullptr;
  napi_create_double(env, number, &result);
  return result;
}

napi_value integer_to_js(napi_env env, int64_t value) {
  napi_value result = nullptr;
  if (value > 9007199254740991 || value < -9007199254740991) {
    napi_create_bigint_int64(env, value, &result);
  } else {
    napi_create_int64(env, value, &result);
  }
  return result;
}

napi_value tensor_to_js(Addon& addon, at::Tensor tensor) {
  return number_to_js(addon.env, tensor.defined() ? addon.table.insert(std::move(tensor)) : 0);
}

napi_value scalar_to_js(napi_env env, const at::Scalar& scalar) {
  napi_value result = nullptr;
  if (scalar.isBoolean()) {
    napi_get_boolean(env, scalar.toBool(), &result);
    return result;
  }
  if (scalar.isIntegral(/*includeBool=*/false)) return integer_to_js(env, scalar.toLong());
  if (scalar.isComplex()) throw std::invalid_argument("complex numbers have no JavaScript form: use torch.viewAsReal()");
  return number_to_js(env, scalar.toDouble());
}

napi_value value_to_js(Addon& addon, c10::IValue& value, const Result& result) {
  napi_env env = addon.env;
  napi_value js = nullptr;
  if (value.isNone()) {
    napi_get_null(env, &js);
    return js;
  }
  switch (result.kind) {
    case Kind::kTensor: return tensor_to_js(addon, std::move(value).toTensor());
    case Kind::kTensorList: {
      auto list = value.toTensorVector();
      value = c10::IValue();
      return handle_array(addon, std::move(list));
    }
    case Kind::kInt:
    case Kind::kScalarType:
    case Kind::kLayout:
    case Kind::kMemoryFormat: return integer_to_js(env, value.toInt());
    case Kind::kFloat: return number_to_js(env, value.toDouble());
    case Kind::kScalar: return scalar_to_js(env, value.toScalar());
    case Kind::kBool: napi_get_boolean(env, value.toBool(), &js); return js;
    case Kind::kString: {
      const auto& text = value.toStringRef();
      napi_create_string_utf8(env, text.data(), text.size(), &js);
      return js;
    }
    case Kind::kDevice: {
      const auto text = value.toDevice().str();
      napi_create_string_utf8(env, text.data(), text.size(), &js);
      return js;
    }
    case Kind::kIntList: {
      const auto list = value.toIntVector();
      napi_create_array_with_length(env, list.size(), &js);
      for (size_t i = 0; i < list.size(); ++i) napi_set_element(env, js, static_cast<uint32_t>(i), integer_to_js(env, list[i]));
      return js;
    }
    case Kind::kFloatList: {
      const auto list = value.toDoubleVector();
      napi_create_array_with_length(env, list.size(), &js);
      for (size_t i = 0; i < list.size(); ++i) napi_set_element(env, js, static_cast<uint32_t>(i), number_to_js(env, list[i]));
      return js;
    }
    default: throw std::invalid_argument("this operator's result has no JavaScript form");
  }
}

// One result comes back as itself, several as an array, a result that is an argument (in place) as undefined.
napi_value results_to_js(Addon& addon, const Operator& op, torch::jit::Stack& stack) {
  const auto& results = op.results;
  if (results.size() == 1) return results[0].alias_of >= 0 ? nullptr : value_to_js(addon, stack[0], results[0]);
  if (results.empty()) return nullptr;
  napi_value array = nullptr;
  napi_create_array_with_length(addon.env, results.size(), &array);
  for (size_t i = 0; i < results.size(); ++i) {
    if (results[i].alias_of >= 0) continue;
    napi_set_element(addon.env, array, static_cast<uint32_t>(i), value_to_js(addon, stack[i], results[i]));
  }
  return array;
}

// The call of a short form with all its tensors given and nothing else; undefined where it is not one.
at::Tensor call_short_form(Addon& addon, const Operator& op, const napi_value* values, size_t count) {
  double first = 0;
  double second = 0;
  if (count == 1 && op.unary && napi_get_value_double(addon.env, values[0], &first) == napi_ok) {
    return op.unary->call(addon.table.get(first));
  }
  if (count != 2 || !(op.binary || op.scaled_binary) || napi_get_value_double(addon.env, values[0], &first) != napi_ok ||
      napi_get_value_double(addon.env, values[1], &second) != napi_ok) {
    return {};
  }
  if (op.binary) return op.binary->call(addon.table.get(first), addon.table.get(second));
  const auto& scale = op.parameters[2].fallback;
  if (!scale) return {};
  return op.scaled_binary->call(addon.table.get(first), addon.table.get(second), scale->toScalar());
}

napi_value call(napi_env env, napi_callback_info raw) {
  napi_value inline_values[kInlineArguments];
  std::vector<napi_value> more_values;
  napi_value* values = inline_values;
  size_t count = kInlineArguments;
  void* data = nullptr;
  napi_get_cb_info(env, raw, &count, values, nullptr, &data);
  if (count > kInlineArguments) {
    more_values.resize(count);
    values = more_values.data();
    napi_get_cb_info(env, raw, &count, values, nullptr, nullptr);
  }
  auto& addon = *static_cast<Addon*>(data);
  return guarded(env, [&]() -> napi_value {
    uint32_t id = 0;
    if (count == 0 || napi_get_value_uint32(env, values[0], &id) != napi_ok || id >= addon.operators.size()) {
      throw std::invalid_argument("call(id, ...): unknown operator id");
    }
    const Operator& op = *addon.operators[id];
    if (!op.callable) {
      throw std::invalid_argument("the operator takes or returns a type that has no JavaScript form");
    }
    at::Tensor short_result = call_short_form(addon, op, values + 1, count - 1);
    if (short_result.defined()) return tensor_to_js(addon, std::move(short_result));
    torch::jit::Stack stack;
    stack.reserve(op.parameters.size() > op.results.size() ? op.parameters.size() : op.results.size());
    ArgumentReader(addon, op, values + 1, count - 1).read_all(stack);
    op.handle.callBoxed(stack);
    return results_to_js(addon, op, stack);
  });
}

}  // namespace

void export_call(Addon& addon, Napi::Object exports) {
  napi_value function = nullptr;
  napi_create_function(addon.env, "call", NAPI_AUTO_LENGTH, call, &addon, &function);
  exports.Set("call", Napi::Value(addon.env, function));
}

}  // namespace fmoe
