#include "gradient-bucket.h"

#include <ATen/ScalarOps.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_div.h>
#include <ATen/ops/div.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <limits>

#include "collectives.h"

namespace fmoe::comm {

namespace {

bool is_half(at::ScalarType dtype) { return dtype == at::kHalf || dtype == at::kBFloat16; }

// Memory is read and written once for each tensor, which is what counts on the CPU.
void divide_into(const std::vector<Tensor>& to, const std::vector<Tensor>& from, double divisor) {
  const Tensor number = at::native::wrapped_scalar_tensor(divisor);
  for (size_t i = 0; i < to.size(); ++i) {
    Tensor target = to[i];
    at::div_out(target, from[i], number);
  }
}

}  // namespace

GradientBucket::GradientBucket(std::vector<Tensor> parameters, GroupPtr group, const BucketSettings& settings)
    : parameters_(std::move(parameters)),
      group_(group && group->size() > 1 ? std::move(group) : GroupPtr()),
      dtype_(parameters_[0].scalar_type()) {
  for (const Tensor& parameter : parameters_) {
    TORCH_CHECK_VALUE(parameter.scalar_type() == dtype_ && parameter.device() == parameters_[0].device(),
                      "argument 'parameters': those of one bucket must have one dtype and be on one device");
  }
  if (settings.widen && is_half(dtype_)) dtype_ = at::kFloat;
  (settings.divide_after || !travels() ? divisor_after_ : divisor_before_) = settings.divisor;
  // A transport that divides by itself saves a pass over the memory.
  if (travels() && divisor_before_ == group_->size() && group_->transport->reduces(dtype_, ReduceOp::mean)) {
    op_ = ReduceOp::mean;
    divisor_before_ = 1;
  }
}

void GradientBucket::prepare() {
  if (flat_.defined()) return;
  int64_t elements = 0;
  for (const Tensor& parameter : parameters_) elements += parameter.numel();
  const auto count = static_cast<int64_t>(parameters_.size());
  flat_ = at::empty({elements + count}, parameters_[0].options().dtype(dtype_).requires_grad(false));
  present_ = flat_.narrow(0, elements, count);
  parts_.clear();
  int64_t at = 0;
  for (const Tensor& parameter : parameters_) {
    parts_.push_back(flat_.narrow(0, at, parameter.numel()).view(parameter.sizes()));
    at += parameter.numel();
  }
}

void GradientBucket::start() {
  const at::NoGradGuard guard;
  if (travels()) {
    prepare();
    flatten();
    send();
  }
  started_ = true;
}

void GradientBucket::start_as_failed() {
  const at::NoGradGuard guard;
  if (travels()) {
    prepare();
    flat_.fill_(std::numeric_limits<double>::quiet_NaN());
    send();
  }
  started_ = true;
}

void GradientBucket::flatten() {
  present_.fill_(1);
  std::vector<Tensor> to, from;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor& gradient = parameters_[i].grad();
    if (gradient.defined()) {
      TORCH_CHECK_NOT_IMPLEMENTED(gradient.layout() == at::kStrided, "gradients that are not dense cannot be combined");
      to.push_back(parts_[i]);
      from.push_back(gradient);
    } else {
      parts_[i].zero_();
      present_.select(0, static_cast<int64_t>(i)).zero_();
    }
  }
  if (to.empty()) return;
  if (flat_.is_cpu() && divisor_before_ != 1 && dtype_ == from[0].scalar_type()) {
    divide_into(to, from, divisor_before_);
    return;
  }
  at::_foreach_copy_(to, from);
  if (divisor_before_ != 1) flat_.div_(divisor_before_);
}

void GradientBucket::send() {
  work_ = all_reduce(group_, flat_, op_);
  // What moves through the host needs it to go on; a stream goes on by itself.
  if (flat_.is_cpu() || !group_->transport->takes(flat_.device())) watch_work(work_);
}

void GradientBucket::finish() {
  const at::NoGradGuard guard;
  started_ = false;
  if (travels()) {
    const WorkPtr work = std::move(work_);
    work->wait();
    unflatten();
  } else if (divisor_after_ != 1) {
    std::vector<Tensor> gradients;
    for (const Tensor& parameter : parameters_) {
      if (parameter.grad().defined()) gradients.push_back(parameter.grad());
    }
    if (!gradients.empty()) at::_foreach_div_(gradients, divisor_after_);
  }
}

void GradientBucket::unflatten() {
  std::vector<Tensor> to, from;
  Tensor present;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor& parameter = parameters_[i];
    if (!parameter.grad().defined()) {
      // On one process a parameter that nothing used has no gradient either, and an optimizer passes it over.
      if (!present.defined()) present = present_.ne(0).cpu();
      if (!present.const_data_ptr<bool>()[i]) continue;
      parameter.mutable_grad() = at::empty_like(parameter);
    }
    to.push_back(parameter.grad());
    from.push_back(parts_[i]);
  }
  if (to.empty()) return;
  if (flat_.is_cpu() && divisor_after_ != 1) {
    divide_into(to, from, divisor_after_);
    return;
  }
  if (divisor_after_ != 1) flat_.div_(divisor_after_);
  at::_foreach_copy_(to, from);
}

void GradientBucket::discard() {
  started_ = false;
  const WorkPtr work = std::move(work_);
  if (work) work->wait();
}

void GradientBucket::forget() {
  started_ = false;
  work_.reset();
  flat_.reset();
  present_.reset();
  parts_.clear();
}

}  // namespace fmoe::comm
