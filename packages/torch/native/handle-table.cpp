#include "handle-table.h"

#include <algorithm>

namespace fmoe {
namespace {

// A tensor without elements still has its own objects and, often, a graph node.
constexpr uint32_t kLeastWeight = 1;
// Reports are rounded to this many KiB, so that most tensors cost no call.
constexpr int64_t kReportStep = 1024;

// A view, or another handle of a tensor that is held elsewhere, adds nothing to what is there already.
uint32_t weight_of(const at::Tensor& tensor) {
  if (tensor.use_count() > 1 || !tensor.has_storage() || tensor.is_meta() || tensor.is_view()) return kLeastWeight;
  const uint64_t kib = tensor.storage().nbytes() >> 10;
  return static_cast<uint32_t>(std::min<uint64_t>(kib, 1u << 31)) + kLeastWeight;
}

}  // namespace

HandleTable::HandleTable() {
  slots_.reserve(4096);
  scopes_.resize(1);
  scopes_[kRootScope].open = true;
}

HandleTable::Handle HandleTable::insert(at::Tensor tensor) {
  uint32_t index = free_slot_;
  if (index != kNone) {
    free_slot_ = slots_[index].next;
  } else {
    if (slots_.size() >= kMaxSlots) {
      throw std::runtime_error("16,777,216 tensors are live at once: dispose some, or work inside torch.tidy()");
    }
    index = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  }
  Slot& slot = slots_[index];
  slot.tensor = std::move(tensor);
  const auto scope = static_cast<uint32_t>(active_scope_);
  link(index, scope < scopes_.size() && scopes_[scope].open ? scope : kRootScope);
  ++live_;
  ++created_;
  return static_cast<double>((static_cast<uint64_t>(slot.generation) << 24) | index);
}

uint32_t HandleTable::locate(Handle handle) const {
  const auto bits = static_cast<uint64_t>(handle);
  const auto index = static_cast<uint32_t>(bits & (kMaxSlots - 1));
  if (index >= slots_.size()) return kNone;
  const Slot& slot = slots_[index];
  return slot.scope != kNone && slot.generation == (bits >> 24) ? index : kNone;
}

uint32_t HandleTable::checked(Handle handle) const {
  const uint32_t index = locate(handle);
  if (index == kNone) {
    throw DisposedTensor(
        "this tensor was disposed: by dispose(), or because the scope that it was born in has ended. Return it from "
        "tidy(), or keep it with scope.keep(tensor) or torch.keep(tensor)");
  }
  return index;
}

const at::Tensor& HandleTable::get(Handle handle) const { return slots_[checked(handle)].tensor; }

bool HandleTable::is_live(Handle handle) const { return locate(handle) != kNone; }

at::Tensor HandleTable::vacate(uint32_t index) {
  Slot& slot = slots_[index];
  unweigh(slot);
  at::Tensor tensor = std::move(slot.tensor);
  slot.tensor = at::Tensor();
  slot.scope = kNone;
  --live_;
  // A slot whose generations are used up is retired: its handles stay invalid for ever.
  if (slot.generation < kMaxGeneration) {
    ++slot.generation;
    slot.next = free_slot_;
    free_slot_ = index;
  }
  return tensor;
}

bool HandleTable::release(Handle handle) {
  const uint32_t index = locate(handle);
  if (index == kNone) return false;
  unlink(index);
  // The tensor dies here, after the table is consistent: its deleter may call back into JavaScript.
  at::Tensor dying = vacate(index);
  return true;
}

void HandleTable::move(Handle handle, uint32_t scope) {
  const uint32_t index = checked(handle);
  if (scope >= scopes_.size() || !scopes_[scope].open) throw std::invalid_argument("the scope is closed");
  unlink(index);
  unweigh(slots_[index]);
  link(index, scope);
}

uint32_t HandleTable::scope_of(Handle handle) const { return slots_[checked(handle)].scope; }

uint32_t HandleTable::open_scope() {
  uint32_t scope;
  if (!free_scopes_.empty()) {
    scope = free_scopes_.back();
    free_scopes_.pop_back();
  } else {
    scope = static_cast<uint32_t>(scopes_.size());
    scopes_.emplace_back();
  }
  scopes_[scope].open = true;
  return scope;
}

size_t HandleTable::close_scope(uint32_t scope) {
  if (scope == kRootScope || scope >= scopes_.size() || !scopes_[scope].open) return 0;
  const size_t count = scopes_[scope].size;
  uint32_t index = scopes_[scope].head;
  scopes_[scope] = Scope();
  free_scopes_.push_back(scope);
  while (index != kNone) {
    const uint32_t next = slots_[index].next;
    at::Tensor dying = vacate(index);
    index = next;
  }
  return count;
}

size_t HandleTable::scope_size(uint32_t scope) const { return scope < scopes_.size() ? scopes_[scope].size : 0; }

size_t HandleTable::open_scopes() const { return scopes_.size() - free_scopes_.size() - 1; }

void HandleTable::link(uint32_t index, uint32_t scope) {
  Slot& slot = slots_[index];
  Scope& owner = scopes_[scope];
  slot.scope = scope;
  slot.previous = kNone;
  slot.next = owner.head;
  if (owner.head != kNone) slots_[owner.head].previous = index;
  owner.head = index;
  ++owner.size;
  if (scope == kRootScope) weigh(slot);
}

void HandleTable::unlink(uint32_t index) {
  Slot& slot = slots_[index];
  Scope& owner = scopes_[slot.scope];
  if (slot.previous != kNone) {
    slots_[slot.previous].next = slot.next;
  } else {
    owner.head = slot.next;
  }
  if (slot.next != kNone) slots_[slot.next].previous = slot.previous;
  --owner.size;
}

void HandleTable::report_memory_to(ReportMemory report, void* context) {
  report_ = report;
  report_context_ = context;
}

void HandleTable::weigh(Slot& slot) {
  slot.weight = weight_of(slot.tensor);
  unreported_ += slot.weight;
  if (unreported_ >= kReportStep) flush_weight();
}

void HandleTable::unweigh(Slot& slot) {
  if (slot.weight == 0) return;
  unreported_ -= slot.weight;
  slot.weight = 0;
  if (unreported_ <= -kReportStep) flush_weight();
}

void HandleTable::flush_weight() {
  const int64_t kib = unreported_;
  unreported_ = 0;
  if (report_) report_(report_context_, kib * 1024);
}

}  // namespace fmoe
