// Calls from the autograd engine into JavaScript.
//
// JavaScript runs on one thread. A CPU graph's backward runs on the thread that called it, so a callback there is a
// plain call. A CUDA graph's backward runs on an engine thread while the caller waits: the caller then serves a queue
// of callbacks until the engine is done (the pump). A backward inside such a callback must run on the engine thread
// that waits for the callback, because only there does the engine see it as re-entrant; so a waiting thread also runs
// errands for the JavaScript thread.
#pragma once

#include <napi.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "addon.h"

namespace fmoe {

class JsPump {
 public:
  JsPump() : js_thread_(std::this_thread::get_id()) {}

  // On the JavaScript thread: runs engine work and serves callbacks meanwhile. Rethrows what the work throws.
  void run_engine(const std::function<void()>& work);

  // On any thread: runs `body` on the JavaScript thread and waits for it.
  void call_on_js(const std::function<void()>& body);

  // Live JavaScript functions that the engine may call.
  std::atomic<int> live_callbacks{0};
  // Whether the backward that called the running callback computes every leaf's gradient. Read by JavaScript only.
  bool all_leaves = true;
  // Forces the pump on CPU graphs too, so that tests cover it without a GPU.
  bool always = false;

 private:
  struct Request {
    const std::function<void()>* body = nullptr;
    const std::function<void()>* errand = nullptr;
    bool done = false;
    std::exception_ptr error;
    std::condition_variable changed;
  };

  bool needs_pump() const;
  void serve(std::unique_lock<std::mutex>& lock);

  const std::thread::id js_thread_;
  std::mutex mutex_;
  std::condition_variable js_changed_;
  std::deque<Request*> requests_;
  std::vector<Request*> waiting_;  // callbacks in progress, innermost last; each blocks its thread
};

// What JavaScript threw, on its way through C++. Unlike Napi::Error it may be copied and die on any thread.
class JsException : public std::exception {
 public:
  // Takes the exception that is pending in JavaScript.
  explicit JsException(Addon& addon);
  const char* what() const noexcept override { return "a JavaScript callback threw"; }
  // Throws the very same value into JavaScript again.
  void rethrow(napi_env env) const;

 private:
  std::shared_ptr<napi_ref> holder_;  // of an array with the thrown value, which may be no object
};

// A JavaScript function that native code holds. May die on any thread.
class JsFunction {
 public:
  JsFunction(Addon& addon, const Napi::Function& function);
  ~JsFunction();
  JsFunction(const JsFunction&) = delete;
  JsFunction& operator=(const JsFunction&) = delete;

  // Calls function(...lists of handles) in a scope of its own and returns the tensors that it gives back: an array of
  // handles, 0 for none. A JavaScript exception comes out as JsException.
  std::vector<at::Tensor> operator()(const std::vector<std::vector<at::Tensor>>& arguments) const;

 private:
  std::vector<at::Tensor> call_here(const std::vector<std::vector<at::Tensor>>& arguments) const;
  std::vector<at::Tensor> call_function(const std::vector<std::vector<at::Tensor>>& arguments) const;

  Addon& addon_;
  std::shared_ptr<DeferredReferences> deferred_;
  napi_ref reference_ = nullptr;
};

}  // namespace fmoe
