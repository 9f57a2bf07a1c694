// What the dispatcher knows of the gradient reducers, which are numbers here.
#include <torch/library.h>

#include "gradient-operators.h"
#include "gradient-reducer.h"
#include "registry.h"

namespace fmoe::comm {

namespace {

using ReducerPtr = std::shared_ptr<GradientReducer>;

// Never destroyed, like the groups that reducers hold.
Registry<ReducerPtr>& registry() {
  static auto* instance = new Registry<ReducerPtr>;
  return *instance;
}

ReducerPtr reducer_of(int64_t id) {
  ReducerPtr reducer = registry().find(id);
  TORCH_CHECK_VALUE(reducer, "there is no gradient reducer ", id, "; it may have been disposed of");
  return reducer;
}

// `parameters` of all buckets one after the other; `groups` have 0 where no other rank has the parameters of the bucket.
int64_t make_reducer(
    at::TensorList parameters,
    at::IntArrayRef bucket_sizes,
    at::IntArrayRef groups,
    at::ArrayRef<double> divisors,
    bool divide_after,
    bool widen,
    bool overlap) {
  TORCH_CHECK_VALUE(groups.size() == bucket_sizes.size() && divisors.size() == bucket_sizes.size(),
                    "argument 'groups': each bucket needs a size, a group and a divisor");
  std::vector<GradientBucket> buckets;
  size_t at = 0;
  for (size_t i = 0; i < bucket_sizes.size(); ++i) {
    TORCH_CHECK_VALUE(bucket_sizes[i] > 0 && at + bucket_sizes[i] <= parameters.size(),
                      "argument 'bucket_sizes': there are ", parameters.size(), " parameters");
    const auto members = groups[i] == 0 ? GroupPtr() : group_of(groups[i]);
    buckets.emplace_back(parameters.slice(at, bucket_sizes[i]).vec(), members, BucketSettings{divisors[i], divide_after, widen});
    at += bucket_sizes[i];
  }
  auto reducer = GradientReducer::make(std::move(buckets), overlap);
  const int64_t id = registry().next_id();
  registry().add(id, std::move(reducer));
  return id;
}

void pause_reducer(int64_t id, bool paused) { reducer_of(id)->pause(paused); }
void finish_reducer(int64_t id) { reducer_of(id)->finish(); }
int64_t started_buckets(int64_t id) { return reducer_of(id)->started(); }

void remove_reducer(int64_t id) { registry().remove(id); }

}  // namespace

void remove_reducers() { registry().clear(); }

TORCH_LIBRARY_FRAGMENT(fmoe_comm, library) {
  library.def(
      "make_gradient_reducer(Tensor[] parameters, int[] bucket_sizes, int[] groups, float[] divisors, bool divide_after,"
      " bool widen, bool overlap) -> int",
      make_reducer);
  library.def("pause_gradient_reducer(int reducer, bool paused) -> ()", pause_reducer);
  library.def("finish_gradient_reducer(int reducer) -> ()", finish_reducer);
  library.def("started_gradient_buckets(int reducer) -> int", started_buckets);
  library.def("remove_gradient_reducer(int reducer) -> ()", remove_reducer);
}

}  // namespace fmoe::comm
