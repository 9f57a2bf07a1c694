// A communicator of NCCL, which one thread at a time may use: calls go through here, whichever thread makes them.
//
// It blocks (ncclConfig blocking = 1): one that does not starts a thread for every call, which takes ten times as long as the call. A
// call that has to meet other members on the host is made on a thread of ours, so that one who never comes ends as an error and
// not as a hang.
#pragma once

#include <c10/core/Device.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "call-thread.h"
#include "nccl-table.h"
#include "transport.h"

namespace fmoe::comm::nccl {

class Communicator {
 public:
  Communicator(const Table& table, double timeout) : timeout(timeout), table_(table) {}
  ~Communicator() { abort(); }

  // Seconds that a call may need.
  std::atomic<double> timeout;

  // Meets the other members, on the current device, which is `device`.
  void init(int size, const UniqueId& id, int rank, const c10::Device& device);

  // The communicator of this process's color, or nothing for color < 0.
  std::shared_ptr<Communicator> split(int color, int key);

  // Makes a call that takes the communicator, on a thread of its own, and waits for it. Work for the GPU is then in its stream.
  // Throws DeadlinePassed, or c10::DistBackendError for what NCCL says. The call owns what it uses: it may go on after that.
  void run(const char* what, std::function<int(Comm)> call);

  // The same on this thread: for a call that waits for no other member.
  template <typename Call>
  void run_here(const char* what, Call&& call) {
    int result = kSuccess;
    {
      std::unique_lock<std::timed_mutex> lock(open_->mutex, std::chrono::duration<double>(timeout.load()));
      if (!lock) throw DeadlinePassed{};
      called_here_ = true;
      const Comm comm = open_->comm;
      result = comm ? call(comm) : kInvalidUsage;
      called_here_ = false;
    }
    if (result != kSuccess) fail(result, what);
  }

  // Whether all is well; throws what went wrong with operations under way.
  void check(const char* what);

  // Ends the operations under way; their kernels return. No other operation may follow.
  void abort();
  bool aborted() const { return aborted_; }

  // The orderly end. All work must be done.
  void close(double seconds);

 private:
  // What a call that never returns holds for ever.
  struct Open {
    std::timed_mutex mutex;
    std::atomic<Comm> comm{nullptr};
  };

  int on_thread(const char* what, std::function<int()> call);
  [[noreturn]] void fail(int result, const char* what);

  const Table& table_;
  const std::shared_ptr<Open> open_ = std::make_shared<Open>();
  CallThread thread_;
  c10::Device device_{c10::kCUDA, 0};
  std::atomic<bool> called_here_{false};
  std::atomic<bool> aborted_{false};
};

}  // namespace fmoe::comm::nccl
