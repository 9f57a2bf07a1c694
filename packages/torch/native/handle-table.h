// The table of every tensor that JavaScript holds, and the scopes that own them.
//
// A handle is a JavaScript number: 24 bits of slot below 29 bits of generation. A disposed handle no longer matches
// its slot's generation, so use after dispose is an error and never a wild pointer. Slots live in one vector: a small
// allocation for each tensor between the big aligned blocks of tensor data would fragment glibc's heap.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <stdexcept>
#include <vector>

namespace fmoe {

struct DisposedTensor : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class HandleTable {
 public:
  using Handle = double;
  static constexpr uint32_t kRootScope = 0;
  // Tells JavaScript's garbage collector that it holds so many bytes more (or less).
  using ReportMemory = void (*)(void* context, int64_t bytes);

  HandleTable();

  // The scope that new tensors join; JavaScript writes it directly through a shared array.
  int32_t* active_scope() { return &active_scope_; }

  // Tensors outside every scope wait for the garbage collector, which sees only small objects: it is told of what they
  // weigh, or a loop without scopes would fill the memory before it starts to collect.
  void report_memory_to(ReportMemory report, void* context);

  Handle insert(at::Tensor tensor);
  const at::Tensor& get(Handle handle) const;
  bool is_live(Handle handle) const;
  // Frees one tensor; false when it was gone already.
  bool release(Handle handle);
  // Moves a tensor to another scope.
  void move(Handle handle, uint32_t scope);
  uint32_t scope_of(Handle handle) const;

  uint32_t open_scope();
  // Frees every tensor of the scope and the scope itself; returns how many were freed.
  size_t close_scope(uint32_t scope);
  size_t scope_size(uint32_t scope) const;

  size_t live() const { return live_; }
  double created() const { return created_; }
  size_t open_scopes() const;

 private:
  static constexpr uint32_t kNone = 0xffffffff;
  static constexpr uint32_t kMaxSlots = 1u << 24;
  static constexpr uint32_t kMaxGeneration = (1u << 29) - 1;

  struct Slot {
    at::Tensor tensor;
    uint32_t generation = 1;
    uint32_t scope = kNone;  // kNone while the slot is free
    uint32_t previous = kNone;
    uint32_t next = kNone;  // next of the scope's list, or of the free list
    uint32_t weight = 0;    // KiB that were reported
  };
  struct Scope {
    uint32_t head = kNone;
    uint32_t size = 0;
    bool open = false;
  };

  uint32_t locate(Handle handle) const;  // kNone when the handle is not live
  uint32_t checked(Handle handle) const;
  void link(uint32_t slot, uint32_t scope);
  void unlink(uint32_t slot);
  at::Tensor vacate(uint32_t slot);
  void weigh(Slot& slot);
  void unweigh(Slot& slot);
  void flush_weight();

  std::vector<Slot> slots_;
  std::vector<Scope> scopes_;
  std::vector<uint32_t> free_scopes_;
  uint32_t free_slot_ = kNone;
  int32_t active_scope_ = 0;
  size_t live_ = 0;
  double created_ = 0;
  int64_t unreported_ = 0;  // KiB
  ReportMemory report_ = nullptr;
  void* report_context_ = nullptr;
};

}  // namespace fmoe
