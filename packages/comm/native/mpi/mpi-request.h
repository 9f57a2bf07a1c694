// Operations of MPI under way, and collective ones that wait until other ranks have said that they do the same.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mpi-table.h"
#include "transport.h"

namespace fmoe::comm {

// What a rank does in a collective operation whose mismatches MPI does not notice, or notices as a hang.
struct Signature {
  int64_t number;    // of such operations in the group
  int64_t kind;      // index into kKinds
  int64_t dtype;     // -1 without a tensor
  int64_t detail;    // the reduction or the root
  int64_t elements;  // of the tensor, or of a row where ranks have different ones
  int64_t rows;      // a hash of the row counts
};

// By Kind.
constexpr const char* kKinds[] = {"all_reduce_", "reduce_scatter", "all_gather", "broadcast_", "barrier"};
enum Kind : int64_t { kAllReduce, kReduceScatter, kAllGather, kBroadcast, kBarrier };

int64_t hash_of(const Counts& rows);

class MpiRequest;

// Collective operations of a group that have not begun yet, in their order. Each begins when the ranks 1, 2, 4 … places before this one
// have said that they do the same: MPI adds up tensors of different sizes and dtypes without a word, waits for ever, or (OpenMPI)
// breaks the heap. With the mutex held.
struct CollectiveQueue {
  std::deque<MpiRequest*> waiting;
  std::string failure;  // why none of them begins

  void advance();
};

// Any number of MPI requests, with what MPI reads until they are done.
class MpiRequest : public Request {
 public:
  ~MpiRequest() override;
  bool test() override;

  // What the ranks say that they do, this one and those before it.
  struct Comparison {
    Signature own;
    std::vector<Signature> others;
    std::vector<int> ranks;  // of the others
  };
  // To be begun by `start` once the comparison, whose messages are added next, has come to its end.
  void begin_later(std::shared_ptr<CollectiveQueue> queue, std::unique_ptr<Comparison> comparison, std::function<void()> start) {
    queue_ = std::move(queue);
    comparison_ = std::move(comparison);
    start_ = std::move(start);
    queue_->waiting.push_back(this);
  }
  // Whether it could begin, and has.
  bool try_to_begin();

  // Room for the handle of one more operation; of a receive with the bytes that must arrive.
  fmoe_mpi_handle* add(int expected = kUnknown) {
    requests_.push_back({0, expected});
    return &requests_.back().handle;
  }

  // Counts of elements, and where each begins, as MPI reads them while it is at work.
  int* keep(const Counts& counts);
  int* keep_offsets(const Counts& counts);

  // For zero bytes: some MPIs look at the pointer all the same.
  static void* address(const Tensor& tensor) {
    static char nothing[16];
    return tensor.numel() == 0 ? nothing : tensor.data_ptr();
  }

 private:
  static constexpr int kUnknown = -1;

  // Those that were added so far.
  bool requests_done();

  struct Part {
    fmoe_mpi_handle handle;
    int expected;
  };
  std::vector<Part> requests_;
  std::vector<std::vector<int>> kept_;
  // Until it has begun.
  std::shared_ptr<CollectiveQueue> queue_;
  std::unique_ptr<Comparison> comparison_;
  std::function<void()> start_;
};

}  // namespace fmoe::comm
