// An operation under way: waits for it with a deadline, on the thread that wants the result, or tells when it is done.
#pragma once

#include <c10/core/Stream.h>

#include <chrono>
#include <exception>
#include <functional>
#include <mutex>

#include "group.h"

namespace fmoe::comm {

// Gives the group up after an operation that could not be begun, and throws; anything but a failure of the communication is
// thrown again as it is. Only in a catch clause.
[[noreturn]] void fail_to_begin(const GroupPtr& group, const std::string& operation, int64_t sequence, int peer);

// Begins an operation. What goes wrong with that is a failure of the group, as it is later. `peer`: see Work.
template <typename Start>
auto begin(const GroupPtr& group, const std::string& operation, int64_t sequence, Start&& start, int peer = -1) {
  try {
    return start();
  } catch (...) {
    fail_to_begin(group, operation, sequence, peer);
  }
}

class Work : public c10::intrusive_ptr_target {
 public:
  // `peer` is the other member of an operation between two, else -1. `kept` are the tensors that the transport reads and writes; `finish` turns what arrived into `result` and runs once, on the
  // thread that waits.
  Work(
      GroupPtr group,
      std::string operation,
      int64_t sequence,
      RequestPtr request,
      std::vector<Tensor> kept,
      Tensor result,
      std::function<void()> finish = nullptr,
      int peer = -1);

  // Returns the result, or throws what went wrong: a failed operation, the deadline, a signal.
  Tensor wait();
  // Looks once. True when wait() would not have to wait; never throws.
  bool poll();
  const Tensor& result() const { return result_; }
  // Whether a stream waits for it, so that it is only watched for its deadline.
  bool joined() const { return joined_; }

 private:
  void drive();
  void give_up(const std::string& reason);
  std::string title() const;
  std::string lateness() const;

  const GroupPtr group_;
  const std::string operation_;
  const int64_t sequence_;
  const int peer_;
  const std::chrono::steady_clock::time_point deadline_;
  std::mutex mutex_;
  RequestPtr request_;  // empty once it is over
  std::atomic<bool> joined_{false};
  std::exception_ptr error_;
  std::vector<Tensor> kept_;
  Tensor result_;
  std::function<void()> finish_;
};

using WorkPtr = c10::intrusive_ptr<Work>;

// --- operations that nobody waits for yet (progress.cpp) ----------------------------------------------------------------------

// Polls an operation that a stream waits for, so that its deadline holds.
void watch_work(WorkPtr work);
// Polls the operation on a thread of its own from now on, and gives it a number.
int64_t add_work(WorkPtr work);
WorkPtr work_of(int64_t id);
void remove_work(int64_t id);
// A pipe that gets a byte whenever operations of add_work finish. Reading it is up to the caller.
int notification_pipe();
// Waits until all are over, one way or another.
void drain_progress();
// Ends the thread.
void stop_progress();

}  // namespace fmoe::comm
