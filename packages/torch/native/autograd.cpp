// Backward, gradients, hooks and functions whose backward is written in JavaScript.
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/autograd/variable.h>

#include "addon.h"
#include "js-callbacks.h"

namespace fmoe {
namespace {

using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

// An undefined list entry is what the engine takes for "ones" or "none".
bool optional_flag(const Napi::Value& value) { return value.IsBoolean() && value.As<Napi::Boolean>().Value(); }

// Engine work drops references to temporaries of JavaScript functions: they are deleted when it is over.
void run_engine(Addon& addon, const std::function<void()>& work) {
  addon.pump->run_engine(work);
  addon.deferred->drain(addon.env);
}

// backward(outputs, gradOutputs, retainGraph, createGraph, inputs)
Napi::Value backward(const Napi::CallbackInfo& info) {
  Addon& addon = addon_of(info);
  const auto outputs = tensor_list(addon, info[0]);
  const auto gradients = tensor_list(addon, info[1]);
  const bool retain = optional_flag(info[2]);
  const bool create = optional_flag(info[3]);
  const auto inputs = tensor_list(addon, info[4]);
  run_engine(addon, [&] { torch::autograd::backward(outputs, gradients, retain, create, inputs); });
  return info.Env().Undefined();
}

// grad(outputs, inputs, gradOutputs, retainGraph, createGraph, allowUnused) -> handles, 0 for an unused input
Napi::Value grad(const Napi::CallbackInfo& info) {
  Addon& addon = addon_of(info);
  const auto outputs = tensor_list(addon, info[0]);
  const auto inputs = tensor_list(addon, info[1]);
  const auto gradients = tensor_list(addon, info[2]);
  const bool retain = optional_flag(info[3]);
  const bool create = optional_flag(info[4]);
  const bool allow_unused = optional_flag(info[5]);
  variable_list results;
  run_engine(addon, [&] {
    results = torch::autograd::grad(outputs, inputs, gradients, retain, create, allow_unused);
  });
  return handle_array(addon, std::move(results));
}

Napi::Value requires_grad(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), tensor_argument(info, 0).requires_grad());
}

Napi::Value set_requires_grad(const Napi::CallbackInfo& info) {
  const at::Tensor& tensor = tensor_argument(info, 0);
  const bool requires = info[1].As<Napi::Boolean>();
  TORCH_CHECK(tensor.is_leaf() || requires, "requiresGrad can only be cleared on a leaf: use detach()");
  TORCH_CHECK_VALUE(!requires || torch::autograd::isDifferentiableType(tensor.scalar_type()),
                    "only floating point tensors can require gradients, this one is ", tensor.scalar_type());
  tensor.set_requires_grad(requires);
  return info.Env().Undefined();
}

Napi::Value is_leaf(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), tensor_argument(info, 0).is_leaf());
}

// gradFunctionName(handle) -> 'AddBackward0', or null for a leaf
Napi::Value grad_function_name(const Napi::CallbackInfo& info) {
  const auto& function = tensor_argument(info, 0).grad_fn();
  if (!function) return info.Env().Null();
  return Napi::String::New(info.Env(), function->name());
}

Napi::Value get_gradient(const Napi::CallbackInfo& info) {
  const at::Tensor& gradient = tensor_argument(info, 0).grad();
  return Napi::Number::New(info.Env(), gradient.defined() ? addon_of(info).table.insert(gradient) : 0);
}

// setGradient(handle, gradientHandle); 0 clears
Napi::Value set_gradient(const Napi::CallbackInfo& info) {
  Addon& addon = addon_of(info);
  const at::Tensor& tensor = tensor_argument(info, 0);
  const double handle = info[1].As<Napi::Number>().DoubleValue();
  if (handle == 0) {
    tensor.mutable_grad().reset();
    return info.Env().Undefined();
  }
  const at::Tensor& gradient = addon.table.get(handle);
  TORCH_CHECK(gradient.sizes() == tensor.sizes(), "a gradient has the shape of its tensor, ", tensor.sizes(), ", not ",
              gradient.sizes());
  TORCH_CHECK(gradient.device() == tensor.device(), "a gradient lives on the device of its tensor, ", tensor.device(),
              ", not on ", gradient.device());
  TORCH_CHECK(gradient.scalar_type() == tensor.scalar_type(), "a gradient has the dtype of its tensor, ",
              tensor.scalar_type(), ", not ", gradient.scalar_type());
  tensor.mutable_grad() = gradient;
  return info.Env().Undefined();
}

// clearGradients(handles): one call for a whole optimizer
Napi::Value clear_gradients(const Napi::CallbackInfo& info) {
  for (auto& tensor : tensor_list(addon_of(info), info[0])) tensor.mutable_grad().reset();
  return info.Env().Undefined();
}

// gradients(handles) -> Float64Array of handles, 0 where a tensor has no gradient
Napi::Value gradients(const Napi::CallbackInfo& info) {
  Addon& addon = addon_of(info);
  const auto tensors = tensor_list(addon, info[0]);
  auto result = Napi::Float64Array::New(info.Env(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor& gradient = tensors[i].grad();
    result[i] = gradient.defined() ? addon.table.insert(gradient) : 0;
  }
  return result;
}

Napi::Value retain_gradient(const Napi::CallbackInfo& info) {
  tensor_argument(info, 0).retain_grad();
  return info.Env().Undefined();
}

// registerHook(handle, function([gradient]) -> [gradient or 0]) -> the hook's key
Napi::Value register_hook(const Napi::CallbackInfo& info) {
  auto function = std::make_shared<JsFunction>(addon_of(info), info[1].As<Napi::Function>());
  const unsigned key = tensor_argument(info, 0).register_hook([function](const at::Tensor& gradient) {
    const auto results = (*function)({{gradient}});
    return results.empty() ? at::Tensor() : results[0];
  });
  return Napi::Number::New(info.Env(), key);
}

Napi::Value remove_hook(const Napi::CallbackInfo& info) {
  tensor_argument(info, 0).remove_hook(info[1].As<Napi::Number>().Uint32Value());
  addon_of(info).deferred->drain(info.Env());
  return info.Env().Undefined();
}

// The graph node of a function written in JavaScript. Saved tensors live here and not in the JavaScript closure: a
// closure that holds its own output would keep the graph alive for ever.
struct JsNode : torch::autograd::Node {
  std::unique_ptr<JsFunction> function;
  std::vector<SavedVariable> saved;
  std::vector<at::TensorOptions> input_options;
  bool released = false;

  variable_list apply(variable_list&& gradients) override {
    TORCH_CHECK(!released, "backward through this function a second time: its saved tensors are freed. Pass "
                           "{ retainGraph: true } to the first backward");
    variable_list unpacked;
    for (auto& variable : saved) unpacked.push_back(variable.unpack(getptr()));
    auto results = (*function)({gradients, unpacked});
    TORCH_CHECK(results.size() == num_outputs(), "backward of a JavaScript function returned ", results.size(),
                " gradients, its forward took ", num_outputs(), " tensors");
    return results;
  }

  void release_variables() override {
    saved.clear();
    released = true;
  }

  std::string name() const override { return "JavaScriptFunctionBackward"; }
};

// attachFunction(inputs, outputs, saved, nonDifferentiable, dirty, function) -> output handles with history.
// `function(gradients, saved)` returns one gradient handle (or 0) an input.
Napi::Value attach_function(const Napi::CallbackInfo& info) {
  Addon& addon = addon_of(info);
  const auto inputs = tensor_list(addon, info[0]);
  const auto outputs = tensor_list(addon, info[1]);
  const auto saved = tensor_list(addon, info[2]);
  std::unordered_set<at::TensorImpl*> non_differentiable;
  for (const auto& tensor : tensor_list(addon, info[3])) non_differentiable.insert(tensor.unsafeGetTensorImpl());
  std::unordered_set<at::TensorImpl*> dirty;
  for (const auto& tensor : tensor_list(addon, info[4])) {
    tensor.unsafeGetTensorImpl()->bump_version();
    dirty.insert(tensor.unsafeGetTensorImpl());
  }

  const bool executable = at::GradMode::is_enabled() && torch::autograd::any_variable_requires_grad(inputs);
  std::shared_ptr<JsNode> node(new JsNode, torch::autograd::deleteNode);
  if (executable) {
    node->function = std::make_unique<JsFunction>(addon, info[5].As<Napi::Function>());
    node->set_next_edges(torch::autograd::collect_next_edges(inputs));
    node->clear_input_metadata();
  }
  std::vector<std::optional<at::Tensor>> raw(outputs.begin(), outputs.end());
  auto wrapped = torch::autograd::_wrap_outputs(
      inputs, non_differentiable, dirty, raw, executable ? node : nullptr, {}, {},
      [](const at::Tensor& x) { return x.view_as(x); }, false);
  variable_list results;
  for (auto& output : wrapped) results.push_back(output.value_or(at::Tensor()));
  if (executable) {
    for (const auto& tensor : saved) {
      bool is_output = false;
      for (size_t i = 0; i < outputs.size(); ++i) {
        if (tensor.unsafeGetTensorImpl() == outputs[i].unsafeGetTensorImpl()) {
          node->saved.emplace_back(results[i], true);
          is_output = true;
          break;
        }
      }
      if (!is_output) node->saved.emplace_back(tensor, false);
    }
  }
  return handle_array(addon, results);
}

Napi::Value set_grad_enabled(const Napi::CallbackInfo& info) {
  const bool previous = at::GradMode::is_enabled();
  at::GradMode::set_enabled(info[0].As<Napi::Boolean>());
  return Napi::Boolean::New(info.Env(), previous);
}

Napi::Value is_grad_enabled(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), at::GradMode::is_enabled());
}

Napi::Value set_pump_always(const Napi::CallbackInfo& info) {
  addon_of(info).pump->always = info[0].As<Napi::Boolean>();
  return info.Env().Undefined();
}

// computesAllLeaves() -> inside a callback: false when the running backward computes chosen gradients only
Napi::Value computes_all_leaves(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), addon_of(info).pump->all_leaves);
}

// liveCallbacks() -> JavaScript functions that graphs and hooks hold
Napi::Value live_callbacks(const Napi::CallbackInfo& info) {
  addon_of(info).deferred->drain(info.Env());
  return Napi::Number::New(info.Env(), addon_of(info).pump->live_callbacks.load());
}

}  // namespace

void export_autograd(Addon& addon, Napi::Object exports) {
  export_all(addon, exports,
             {{"backward", backward}, {"grad", grad}, {"requiresGrad", requires_grad},
              {"setRequiresGrad", set_requires_grad}, {"isLeaf", is_leaf}, {"gradFunctionName", grad_function_name},
              {"getGradient", get_gradient}, {"setGradient", set_gradient}, {"clearGradients", clear_gradients},
              {"gradients", gradients}, {"retainGradient", retain_gradient}, {"registerHook", register_hook},
              {"removeHook", remove_hook}, {"attachFunction", attach_function}, {"setGradEnabled", set_grad_enabled},
              {"isGradEnabled", is_grad_enabled}, {"setPumpAlways", set_pump_always},
              {"computesAllLeaves", computes_all_leaves},
              {"liveCallbacks", live_callbacks}});
}

}  // namespace fmoe
