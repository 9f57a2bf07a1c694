// A communicator of NCCL, which one thread at a time may use: calls go through here, whichever thread makes them.
//
// It does not block (ncclConfig blocking = 0): what cannot be finished at once goes on in a thread of NCCL's own, and is looked at
// until it is through. So a member that never comes ends as an error and not as a hang.
#pragma once

#include <c10/core/Device.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "nccl-table.h"

namespace fmoe::comm::nccl {

class Communicator {
 public:
  Communicator(const Table& table, double timeout) : timeout(timeout), table_(table) {}
  ~Communicator() { abort(); }

  // Seconds that a call may need until it is through.
  std::atomic<double> timeout;

  // Meets the other members, on the current device, which is `device`.
  void init(int size, const UniqueId& id, int rank, const c10::Device& device);

  // The communicator of this process's color, or nothing for color < 0.
  std::shared_ptr<Communicator> split(int color, int key);

  // Makes a call that takes the communicator, and waits until it is through: until then no other may follow. Work for the GPU is
  // then in its stream. Throws DeadlinePassed, or c10::DistBackendError for what NCCL says.
  template <typename Call>
  void run(const char* what, Call&& call) {
    int result = kSuccess;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      result = comm_ ? call(comm_) : kInvalidUsage;
    }
    settle(result, what);
  }

  // Whether all is well; throws what went wrong with operations under way.
  void check(const char* what);

  // Ends the operations under way; their kernels return. No other operation may follow.
  void abort();
  bool aborted() const { return aborted_; }

  // The orderly end. All work must be done.
  void close(double seconds);

 private:
  int state();
  // Waits while NCCL is at it.
  void settle(int result, const char* what);
  [[noreturn]] void fail(int result, const char* what);

  const Table& table_;
  std::mutex mutex_;
  Comm comm_ = nullptr;
  c10::Device device_{c10::kCUDA, 0};
  std::atomic<bool> aborted_{false};
};

}  // namespace fmoe::comm::nccl
