// A process group: who its members are, what carries its bytes, and how far it has come. Operators name a group by a number;
// autograd nodes and operations under way hold the object.
#pragma once

#include <ATen/core/ivalue.h>

#include <atomic>
#include <mutex>
#include <optional>

#include "transport.h"

namespace fmoe::comm {

// The most recent operation, for the account that a timeout gives (watch.h).
struct Progress {
  int64_t sequence = 0;
  std::string operation;
};

class Group : public torch::CustomClassHolder {
 public:
  Group(std::string name, int rank, std::vector<int64_t> members, std::unique_ptr<Transport> transport, double timeout);

  const std::string name;
  const int rank;
  const std::vector<int64_t> members;  // ranks in the world, [W]
  const std::unique_ptr<Transport> transport;
  std::atomic<double> timeout;  // seconds

  int size() const { return static_cast<int>(members.size()); }
  int64_t id() const { return id_; }

  // Counts a collective operation that this process begins, or notes one between two members, which has no number (0). Throws
  // when the group has failed before.
  int64_t enter(const std::string& operation, bool collective = true);
  Progress progress() const;

  // From then on every operation throws; the first reason stays.
  void fail(const std::string& reason);
  std::optional<std::string> failure() const;

  // Every member calls it. Empty for color < 0.
  c10::intrusive_ptr<Group> split(int64_t color, int64_t key, const std::string& label);

 private:
  friend c10::intrusive_ptr<Group> add_group(c10::intrusive_ptr<Group>);
  int64_t id_ = 0;
  mutable std::mutex mutex_;
  Progress progress_;
  int64_t splits_ = 0;
  std::optional<std::string> failure_;
};

using GroupPtr = c10::intrusive_ptr<Group>;

// Gives it a number.
GroupPtr add_group(GroupPtr group);
// The group of a number. Throws ValueError when there is none.
GroupPtr group_of(int64_t id);
void remove_group(int64_t id);
std::vector<GroupPtr> all_groups();

// A failure of the communication, which arrives as ERR_COMM.
[[noreturn]] void throw_comm_error(const std::string& message);

}  // namespace fmoe::comm
