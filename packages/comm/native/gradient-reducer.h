// Combines the gradients of a model over the groups of its parameters while backward computes others.
//
// Backward runs on whatever thread the engine chooses: the caller's for the CPU, one of its own for each GPU. Hooks in C++ begin an
// operation there, which every transport allows: MPI has one mutex around its calls, NCCL one around those of a communicator. The
// hook runs on the stream that the gradient was made on, and NCCL's stream waits for that one.
#pragma once

#include <c10/core/Stream.h>

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "gradient-bucket.h"

namespace torch::autograd {
struct Node;
}

namespace fmoe::comm {

// A step has a *round*: all buckets, in one order on all ranks. A bucket whose gradients are complete waits for those before it.
class GradientReducer : public std::enable_shared_from_this<GradientReducer> {
 public:
  // `overlap`: begin while backward is at work, from the second round on. NCCL makes its connections at the first operation of each
  // kind, for which the host of every rank has to be there, and during backward it may wait for another.
  static std::shared_ptr<GradientReducer> make(std::vector<GradientBucket> buckets, bool overlap);
  ~GradientReducer();

  // While paused, backward only adds up gradients here.
  void pause(bool paused) { paused_ = paused; }
  // Starts what backward has not started, waits, and leaves the combined gradients in the parameters. Throws what went wrong in
  // hooks as well.
  void finish();
  // Buckets of this round that are under way.
  int64_t started();

 private:
  struct Hook;
  enum class State { running, ended, failed };
  // A backward that has reached one of the hooks in this round.
  struct Backward {
    int id;
    std::shared_ptr<std::atomic<State>> state;
  };

  explicit GradientReducer(std::vector<GradientBucket> buckets) : buckets_(std::move(buckets)) {}
  void install_hooks();
  void arrived(size_t bucket, size_t parameter);
  void watch_backward();
  void follow_stream(const c10::Device& device);
  void give_round_up();
  void begin_round();

  std::mutex mutex_;
  std::vector<GradientBucket> buckets_;
  std::vector<std::vector<bool>> complete_;  // by bucket and parameter: whether this round has the gradient
  std::vector<size_t> missing_;              // by bucket: the number of those that are not complete
  size_t next_ = 0;                          // the first bucket that has not started
  bool early_ = false;                       // whether hooks start buckets; not in the first round
  std::atomic<bool> paused_{false};
  std::exception_ptr error_;
  std::vector<Backward> backwards_;
  std::optional<c10::Stream> stream_;
  std::vector<std::pair<std::shared_ptr<torch::autograd::Node>, uintptr_t>> hooks_;
};

}  // namespace fmoe::comm
