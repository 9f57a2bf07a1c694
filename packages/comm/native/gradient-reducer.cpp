#include "gradient-reducer.h"

#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>

namespace fmoe::comm {

using torch::autograd::variable_list;

// Runs when the gradient of a parameter has been added up.
struct GradientReducer::Hook : torch::autograd::FunctionPostHook {
  Hook(std::weak_ptr<GradientReducer> owner, size_t bucket_index, size_t parameter_index)
      : reducer(std::move(owner)), bucket(bucket_index), parameter(parameter_index) {}

  variable_list operator()(const variable_list& outputs, const variable_list&) override {
    if (const auto owner = reducer.lock()) owner->arrived(bucket, parameter);
    return outputs;
  }

  const std::weak_ptr<GradientReducer> reducer;
  const size_t bucket, parameter;
};

std::shared_ptr<GradientReducer> GradientReducer::make(std::vector<GradientBucket> buckets, bool overlap) {
  std::shared_ptr<GradientReducer> reducer(new GradientReducer(std::move(buckets)));
  reducer->begin_round();
  if (overlap) reducer->install_hooks();
  return reducer;
}

void GradientReducer::install_hooks() {
  for (size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    const auto& parameters = buckets_[bucket].parameters();
    for (size_t i = 0; i < parameters.size(); ++i) {
      TORCH_CHECK_VALUE(parameters[i].is_leaf() && parameters[i].requires_grad(),
                        "argument 'parameters': each must be a leaf that requires gradients");
      // A variable does not keep the node that adds up its gradient.
      auto node = torch::autograd::impl::grad_accumulator(parameters[i]);
      const auto key = node->add_post_hook(std::make_unique<Hook>(weak_from_this(), bucket, i));
      hooks_.emplace_back(std::move(node), key);
    }
  }
}

GradientReducer::~GradientReducer() {
  for (const auto& [node, key] : hooks_) node->del_post_hook(key);
}

void GradientReducer::arrived(size_t index, size_t parameter) {
  if (paused_) return;
  std::lock_guard<std::mutex> lock(mutex_);
  if (error_) return;
  const auto failed = [](const Backward& backward) { return *backward.state == State::failed; };
  try {
    if (std::any_of(backwards_.begin(), backwards_.end(), failed)) give_round_up();
    watch_backward();
    auto& bucket = buckets_[index];
    TORCH_CHECK(!bucket.started(),
                "backward reached a parameter whose gradient is on its way to the other ranks already. Run all but the last "
                "backward of a step inside noSync(), and call allreduceGradients() after the last; a model that uses a parameter "
                "again in a nested backward needs overlap: false.");
    follow_stream(bucket.parameters()[parameter].device());
    if (complete_[index][parameter]) return;
    complete_[index][parameter] = true;
    --missing_[index];
    for (; early_ && next_ < buckets_.size() && missing_[next_] == 0; ++next_) buckets_[next_].start();
  } catch (const c10::DistError&) {
    // Backward goes on, and finish() tells.
    error_ = std::current_exception();
  }
}

// The engine drops its callbacks without a call when a backward throws. A nested backward ends before the one around it, which is
// still running then.
void GradientReducer::watch_backward() {
  const int id = torch::autograd::get_current_graph_task_id();
  for (const Backward& known : backwards_) {
    if (known.id == id) return;
  }
  struct End {
    explicit End(std::shared_ptr<std::atomic<State>> of) : state(std::move(of)) {}
    ~End() {
      State expected = State::running;
      state->compare_exchange_strong(expected, State::failed);
    }
    std::shared_ptr<std::atomic<State>> state;
  };
  auto state = std::make_shared<std::atomic<State>>(State::running);
  auto end = std::make_shared<End>(state);
  torch::autograd::Engine::get_default_engine().queue_callback([end] { *end->state = State::ended; });
  backwards_.push_back({id, std::move(state)});
}

// Hooks may run on several streams: what one has submitted comes before what the next submits.
void GradientReducer::follow_stream(const c10::Device& device) {
  if (device.is_cpu()) return;
  const auto stream = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
  if (stream_ && *stream_ != stream) {
    c10::Event event(device.type());
    event.record(*stream_);
    event.block(stream);
  }
  stream_ = stream;
}

void GradientReducer::finish() {
  std::lock_guard<std::mutex> lock(mutex_);
  try {
    if (error_) std::rethrow_exception(error_);
    // No backward runs any more, so one that has not ended has thrown.
    const auto ended = [](const Backward& backward) { return *backward.state == State::ended; };
    if (!std::all_of(backwards_.begin(), backwards_.end(), ended)) give_round_up();
    for (const auto& bucket : buckets_) follow_stream(bucket.parameters()[0].device());
    for (; next_ < buckets_.size(); ++next_) buckets_[next_].start();
    for (auto& bucket : buckets_) bucket.finish();
  } catch (...) {
    for (auto& bucket : buckets_) bucket.forget();
    begin_round();
    throw;
  }
  begin_round();
  early_ = true;
}

int64_t GradientReducer::started() {
  std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<int64_t>(next_);
}

// After a backward that threw. Once a bucket is on its way all must follow, or those of the next round would meet what is left of
// this one on other ranks.
void GradientReducer::give_round_up() {
  if (next_ > 0) {
    for (; next_ < buckets_.size(); ++next_) buckets_[next_].start_as_failed();
    for (auto& bucket : buckets_) bucket.discard();
  }
  begin_round();
}

void GradientReducer::begin_round() {
  next_ = 0;
  error_ = nullptr;
  backwards_.clear();
  complete_.clear();
  missing_.clear();
  for (const auto& bucket : buckets_) {
    missing_.push_back(bucket.parameters().size());
    complete_.emplace_back(bucket.parameters().size(), false);
  }
}

}  // namespace fmoe::comm
