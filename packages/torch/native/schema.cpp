// Looks operators up in the dispatcher and describes their schemas to JavaScript.
#include <c10/core/DeviceType.h>

#include "addon.h"
#include "operator.h"

namespace fmoe {
namespace {

struct TypeDescription {
  Kind kind;
  bool optional;
  std::string text;
};

TypeDescription describe(const c10::TypePtr& type) {
  std::string text = type->str();
  std::string base = text;
  bool optional = false;
  if (base.size() > 1 && base.back() == '?') {
    optional = true;
    base.pop_back();
  }
  static const std::unordered_map<std::string, Kind> kinds = {
      {"Tensor", Kind::kTensor},       {"Tensor[]", Kind::kTensorList}, {"Tensor?[]", Kind::kOptionalTensorList},
      {"int", Kind::kInt},             {"SymInt", Kind::kInt},          {"int[]", Kind::kIntList},
      {"SymInt[]", Kind::kIntList},    {"float", Kind::kFloat},         {"float[]", Kind::kFloatList},
      {"bool", Kind::kBool},           {"bool[]", Kind::kBoolList},     {"Scalar", Kind::kScalar},
      {"Scalar[]", Kind::kScalarList}, {"str", Kind::kString},          {"ScalarType", Kind::kScalarType},
      {"Layout", Kind::kLayout},       {"Device", Kind::kDevice},       {"MemoryFormat", Kind::kMemoryFormat},
      {"Generator", Kind::kGenerator}, {"number", Kind::kScalar}};
  const auto found = kinds.find(base);
  return {found == kinds.end() ? Kind::kUnsupported : found->second, optional, text};
}

bool has_form(const Operator& op, std::initializer_list<Kind> kinds) {
  if (op.results.size() != 1 || op.results[0].kind != Kind::kTensor || op.results[0].alias_of >= 0) return false;
  return std::equal(kinds.begin(), kinds.end(), op.parameters.begin(), op.parameters.end(),
                    [](Kind kind, const Parameter& parameter) { return parameter.kind == kind && !parameter.optional; });
}

// An operator without this C++ signature (a boxed kernel, a view that takes another type) keeps to the boxed path.
template <typename Signature>
std::optional<c10::TypedOperatorHandle<Signature>> typed(const c10::OperatorHandle& handle) {
  try {
    return handle.typed<Signature>();
  } catch (const c10::Error&) {
    return std::nullopt;
  }
}

uint32_t intern(Addon& addon, const std::string& full_name, const c10::OperatorHandle& handle) {
  auto op = std::make_unique<Operator>(Operator{handle, {}, {}, true});
  const auto& schema = handle.schema();
  for (const auto& argument : schema.arguments()) {
    const auto type = describe(argument.real_type());
    Parameter parameter;
    parameter.kind = type.kind;
    parameter.optional = type.optional;
    parameter.fallback = argument.default_value();
    parameter.fixed_length = argument.N().value_or(0);
    // A kind that JavaScript cannot give must fall back to its default.
    if (type.kind == Kind::kUnsupported && !parameter.fallback && !type.optional) op->callable = false;
    op->parameters.push_back(std::move(parameter));
  }
  for (const auto& result : schema.returns()) {
    const auto type = describe(result.real_type());
    Result described{type.kind, -1};
    if (type.kind == Kind::kUnsupported) op->callable = false;
    if (result.alias_info() && result.alias_info()->isWrite() && type.kind == Kind::kTensor) {
      for (size_t i = 0; i < schema.arguments().size(); ++i) {
        const auto* alias = schema.arguments()[i].alias_info();
        if (alias && *alias == *result.alias_info()) described.alias_of = static_cast<int32_t>(i);
      }
    }
    op->results.push_back(described);
  }
  if (has_form(*op, {Kind::kTensor})) op->unary = typed<at::Tensor(const at::Tensor&)>(handle);
  if (has_form(*op, {Kind::kTensor, Kind::kTensor})) {
    op->binary = typed<at::Tensor(const at::Tensor&, const at::Tensor&)>(handle);
  }
  if (has_form(*op, {Kind::kTensor, Kind::kTensor, Kind::kScalar})) {
    op->scaled_binary = typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Scalar&)>(handle);
  }
  const auto id = static_cast<uint32_t>(addon.operators.size());
  addon.operators.push_back(std::move(op));
  addon.operator_ids[full_name] = id;
  return id;
}

Napi::Object describe_operator(Addon& addon, uint32_t id) {
  Napi::Env env = addon.env;
  const Operator& op = *addon.operators[id];
  const auto& schema = op.handle.schema();
  auto arguments = Napi::Array::New(env, schema.arguments().size());
  for (size_t i = 0; i < schema.arguments().size(); ++i) {
    const auto& argument = schema.arguments()[i];
    auto entry = Napi::Object::New(env);
    entry.Set("name", argument.name());
    entry.Set("type", describe(argument.real_type()).text);
    entry.Set("hasDefault", op.parameters[i].fallback.has_value());
    entry.Set("keywordOnly", argument.kwarg_only());
    entry.Set("isOut", argument.is_out());
    entry.Set("isWrite", argument.alias_info() != nullptr && argument.alias_info()->isWrite());
    entry.Set("fixedLength", op.parameters[i].fixed_length);
    arguments.Set(static_cast<uint32_t>(i), entry);
  }
  auto returns = Napi::Array::New(env, schema.returns().size());
  for (size_t i = 0; i < schema.returns().size(); ++i) {
    auto entry = Napi::Object::New(env);
    entry.Set("name", schema.returns()[i].name());
    entry.Set("type", describe(schema.returns()[i].real_type()).text);
    entry.Set("aliasOf", op.results[i].alias_of);
    returns.Set(static_cast<uint32_t>(i), entry);
  }
  auto object = Napi::Object::New(env);
  object.Set("id", id);
  object.Set("name", schema.name());
  object.Set("overload", schema.overload_name());
  object.Set("callable", op.callable);
  object.Set("arguments", arguments);
  object.Set("returns", returns);
  return object;
}

// findSchema('aten::add.Tensor') -> description, or null.
Napi::Value find_schema(const Napi::CallbackInfo& info) {
  Addon& addon = addon_of(info);
  const std::string full_name = info[0].As<Napi::String>();
  const auto known = addon.operator_ids.find(full_name);
  if (known != addon.operator_ids.end()) return describe_operator(addon, known->second);
  const auto dot = full_name.find('.');
  const c10::OperatorName name(full_name.substr(0, dot), dot == std::string::npos ? "" : full_name.substr(dot + 1));
  const auto handle = c10::Dispatcher::singleton().findSchema(name);
  if (!handle) return addon.env.Null();
  return describe_operator(addon, intern(addon, full_name, *handle));
}

// operatorNames() -> every operator with a schema, 'aten::add.Tensor' style, sorted.
Napi::Value operator_names(const Napi::CallbackInfo& info) {
  Addon& addon = addon_of(info);
  std::vector<std::string> names;
  for (const auto& name : c10::Dispatcher::singleton().getAllOpNames()) {
    if (!c10::Dispatcher::singleton().findSchema(name)) continue;
    names.push_back(name.overload_name.empty() ? name.name : name.name + "." + name.overload_name);
  }
  std::sort(names.begin(), names.end());
  auto array = Napi::Array::New(addon.env, names.size());
  for (size_t i = 0; i < names.size(); ++i) array.Set(static_cast<uint32_t>(i), names[i]);
  return array;
}

}  // namespace

void export_schema(Addon& addon, Napi::Object exports) {
  export_all(addon, exports, {{"findSchema", find_schema}, {"operatorNames", operator_names}});
}

}  // namespace fmoe
