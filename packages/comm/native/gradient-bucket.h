// Gradients that travel together: one flat buffer, kept from step to step, and one all-reduce.
//
// Shape letters: P elements of all parameters, n parameters.
#pragma once

#include <vector>

#include "work.h"

namespace fmoe::comm {

struct BucketSettings {
  // What the sum over the group is divided by.
  double divisor = 1;
  // Divide after adding up, not before.
  bool divide_after = false;
  // Half precision travels as float32.
  bool widen = false;
};

// Not to be called by two threads at once. All ranks of the group make the same buckets, whatever gradients they have: a missing
// gradient travels as zeros.
class GradientBucket {
 public:
  // `group` is empty when no other rank has these parameters: gradients are divided and stay.
  GradientBucket(std::vector<Tensor> parameters, GroupPtr group, const BucketSettings& settings);

  const std::vector<Tensor>& parameters() const { return parameters_; }
  // Whether gradients are on their way.
  bool started() const { return started_; }

  // Begins to combine the gradients as they are now. The host waits for nothing.
  void start();
  // The same for a step that is given up: ranks that did not give it up get NaN, not a part of a sum.
  void start_as_failed();
  // Waits for the combined gradients and puts them into the parameters. The host reads from the device only where this rank
  // misses a gradient.
  void finish();
  // Waits, and leaves the gradients as they are.
  void discard();
  // Lets the operation run on without its buffer, after a failure.
  void forget();

 private:
  bool travels() const { return static_cast<bool>(group_); }
  void prepare();
  void flatten();
  void send();
  void unflatten();

  const std::vector<Tensor> parameters_;
  const GroupPtr group_;
  bool started_ = false;
  at::ScalarType dtype_;
  ReduceOp op_ = ReduceOp::sum;
  double divisor_before_ = 1;
  double divisor_after_ = 1;
  Tensor flat_;                // [P+n]: gradients one after the other, and then 1 for each that there is
  Tensor present_;             // [n], the end of flat_
  std::vector<Tensor> parts_;  // views of flat_ in the parameters' shapes
  WorkPtr work_;
};

}  // namespace fmoe::comm
