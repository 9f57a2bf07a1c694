#include "mpi-request.h"

#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <numeric>
#include <utility>

#include "mpi-calls.h"

namespace fmoe::comm {

namespace {

std::string text_of(const Signature& signature) {
  std::string text = std::string(kKinds[signature.kind]) + " (number " + std::to_string(signature.number) + ")";
  if (signature.dtype < 0) return text;
  const bool has_rows = signature.kind == kAllGather || signature.kind == kReduceScatter;
  return text + " of " + (has_rows ? "rows of " : "") + std::to_string(signature.elements) + " " +
         c10::getDtypeNames(static_cast<at::ScalarType>(signature.dtype)).first + " with setting " +
         std::to_string(signature.detail);
}

}  // namespace

int64_t hash_of(const Counts& rows) {
  uint64_t hash = 14695981039346656037u;  // FNV-1a
  for (const int64_t count : rows) hash = (hash ^ static_cast<uint64_t>(count)) * 1099511628211u;
  return static_cast<int64_t>(hash);
}

// MPI still reads the counts and writes the signatures of an operation that was given up: they are never freed.
MpiRequest::~MpiRequest() {
  // Another thread may be about to begin it.
  std::lock_guard<std::mutex> lock(mpi_mutex());
  if (!requests_.empty() || comparison_) new auto(std::make_pair(std::move(kept_), std::move(comparison_)));
  if (!start_) return;
  auto& waiting = queue_->waiting;
  waiting.erase(std::remove(waiting.begin(), waiting.end(), this), waiting.end());
  if (queue_->failure.empty()) queue_->failure = "an earlier operation of the group was given up before it began";
}

bool MpiRequest::test() {
  std::lock_guard<std::mutex> lock(mpi_mutex());
  if (start_) {
    queue_->advance();
    if (start_ && !queue_->failure.empty()) C10_THROW_ERROR(DistBackendError, queue_->failure);
    if (start_) return false;
  }
  return requests_done();
}

bool MpiRequest::try_to_begin() {
  if (!requests_done()) return false;
  for (size_t i = 0; i < comparison_->ranks.size(); ++i) {
    if (std::memcmp(&comparison_->own, &comparison_->others[i], sizeof(Signature)) == 0) continue;
    const std::string here = text_of(comparison_->own), there = text_of(comparison_->others[i]);
    C10_THROW_ERROR(DistBackendError, "the ranks do not agree: rank " + std::to_string(comparison_->ranks[i]) + " calls " + there +
                                          ", this rank " + here + (here == there ? " and other row counts" : ""));
  }
  comparison_.reset();
  start_();
  start_ = nullptr;
  return true;
}

int* MpiRequest::keep(const Counts& counts) {
  std::vector<int> values;
  values.reserve(counts.size());
  for (const int64_t count : counts) {
    TORCH_CHECK_VALUE(count <= INT_MAX, count, " rows are more than MPI can address (2^31 - 1)");
    values.push_back(static_cast<int>(count));
  }
  kept_.push_back(std::move(values));
  return kept_.back().data();
}

int* MpiRequest::keep_offsets(const Counts& counts) {
  Counts offsets(counts.size(), 0);
  std::partial_sum(counts.begin(), counts.end() - 1, offsets.begin() + 1);
  return keep(offsets);
}

bool MpiRequest::requests_done() {
  while (!requests_.empty()) {
    auto& [handle, expected] = requests_.back();
    int done = 0, bytes = 0;
    check_mpi(mpi->test(&handle, &done, &bytes), "the operation failed; do all ranks agree on the sizes? FMOE_COMM_DEBUG=1 tells");
    if (!done) return false;
    if (expected != kUnknown && bytes != expected) {
      C10_THROW_ERROR(DistBackendError, "MPI: " + std::to_string(bytes) + " bytes arrived where " + std::to_string(expected) +
                                            " were expected: the ranks do not agree on the sizes");
    }
    requests_.pop_back();
  }
  return true;
}

void CollectiveQueue::advance() {
  while (failure.empty() && !waiting.empty()) {
    try {
      if (!waiting.front()->try_to_begin()) return;
    } catch (const c10::Error& error) {
      failure = error.what_without_backtrace();
      return;
    }
    waiting.pop_front();
  }
}

}  // namespace fmoe::comm
