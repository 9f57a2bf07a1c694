// Refuses allocations of CPU memory that cannot be meant. Where the system grants every wish and kills the process once the
// pages are touched, this is the only chance to fail with an error.
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <atomic>

#include "addon.h"

namespace fmoe {
namespace {

class LimitedAllocator final : public c10::Allocator {
 public:
  explicit LimitedAllocator(c10::Allocator* base) : base_(base) {}

  c10::DataPtr allocate(size_t bytes) override {
    const size_t limit = limit_.load(std::memory_order_relaxed);
    TORCH_CHECK_WITH(OutOfMemoryError, bytes <= limit, "can't allocate memory: you tried to allocate ", bytes,
                     " bytes, far more than this machine has");
    return base_->allocate(bytes);
  }

  bool is_simple_data_ptr(const c10::DataPtr& pointer) const override { return base_->is_simple_data_ptr(pointer); }
  c10::DeleterFnPtr raw_deleter() const override { return base_->raw_deleter(); }
  void copy_data(void* to, const void* from, size_t bytes) const override { base_->copy_data(to, from, bytes); }

  void set_limit(size_t bytes) { limit_ = bytes; }

 private:
  c10::Allocator* const base_;
  std::atomic<size_t> limit_{SIZE_MAX};
};

// setMemoryLimit(bytes): the most that one CPU tensor may take
Napi::Value set_memory_limit(const Napi::CallbackInfo& info) {
  // One for the process, and for good: libtorch may allocate until the very end.
  static auto* const allocator = [] {
    auto* made = new LimitedAllocator(c10::GetCPUAllocator());
    c10::SetCPUAllocator(made, /*priority=*/255);
    return made;
  }();
  allocator->set_limit(static_cast<size_t>(info[0].As<Napi::Number>().DoubleValue()));
  return info.Env().Undefined();
}

}  // namespace

void export_memory_limit(Addon& addon, Napi::Object exports) {
  export_all(addon, exports, {{"setMemoryLimit", set_memory_limit}});
}

}  // namespace fmoe
