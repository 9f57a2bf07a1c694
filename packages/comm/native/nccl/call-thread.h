// A thread that makes calls which may not return: whoever asks for one waits no longer than it wants to.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>

namespace fmoe::comm {

class CallThread {
 public:
  CallThread() = default;
  // Leaves a call that has not returned alone.
  ~CallThread();
  CallThread(const CallThread&) = delete;
  CallThread& operator=(const CallThread&) = delete;

  // Makes the call on the thread and gives its result. Throws DeadlinePassed after that many seconds, or c10::DistBackendError two
  // seconds after a signal; then the call may still be under way, with what it holds, and there can be no other. `what` names it.
  int run(std::function<int()> call, double seconds, const char* what);

 private:
  struct Desk;
  std::mutex callers_;
  std::shared_ptr<Desk> desk_;
};

}  // namespace fmoe::comm
