#include "group.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>

#include "collectives.h"
#include "registry.h"

namespace fmoe::comm {

namespace {

// Never destroyed: threads may outlive the statics of this library.
Registry<GroupPtr>& registry() {
  static auto* instance = new Registry<GroupPtr>;
  return *instance;
}

}  // namespace

[[noreturn]] void throw_comm_error(const std::string& message) { C10_THROW_ERROR(DistBackendError, message); }

Group::Group(
    std::string group_name,
    int own_rank,
    std::vector<int64_t> world_ranks,
    std::unique_ptr<Transport> carrier,
    double seconds)
    : name(std::move(group_name)),
      rank(own_rank),
      members(std::move(world_ranks)),
      transport(std::move(carrier)),
      timeout(seconds) {}

int64_t Group::enter(const std::string& operation, bool collective) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (failure_) throw_comm_error(operation + ": the group '" + name + "' has failed before: " + *failure_);
  progress_.operation = operation;
  return collective ? ++progress_.sequence : 0;
}

Progress Group::progress() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return progress_;
}

void Group::fail(const std::string& reason) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (failure_) return;
    failure_ = reason;
  }
  transport->abort();
}

std::optional<std::string> Group::failure() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

GroupPtr Group::split(int64_t color, int64_t key, const std::string& label) {
  int64_t number = 0;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    number = ++splits_;
  }
  // Everybody's answer first, with a deadline: what makes a communicator may wait for ever for a process that never comes.
  const Tensor mine = at::empty({1, 2}, at::kLong);
  mine.data_ptr<int64_t>()[0] = color;
  mine.data_ptr<int64_t>()[1] = key;
  const auto self = GroupPtr::reclaim_copy(this);
  const Tensor all = all_gather(self, mine, Counts(members.size(), 1), "split")->wait();
  const auto* answers = all.const_data_ptr<int64_t>();

  std::vector<int> chosen;
  for (int member = 0; member < size(); ++member) {
    if (color >= 0 && answers[2 * member] == color) chosen.push_back(member);
  }
  std::stable_sort(chosen.begin(), chosen.end(), [&](int a, int b) { return answers[2 * a + 1] < answers[2 * b + 1]; });
  const std::string made =
      label.empty() ? name + "/" + std::to_string(number) + "." + std::to_string(std::max<int64_t>(color, 0)) : label;
  auto carrier = begin(self, "split", progress().sequence, [&] {
    return transport->split(static_cast<int>(color), static_cast<int>(key), chosen, made);
  });
  if (!carrier) return {};
  std::vector<int64_t> world_ranks;
  for (const int member : chosen) world_ranks.push_back(members[member]);
  const auto place = std::find(chosen.begin(), chosen.end(), rank) - chosen.begin();
  return add_group(c10::make_intrusive<Group>(
      made, static_cast<int>(place), std::move(world_ranks), std::move(carrier), timeout.load()));
}

GroupPtr add_group(GroupPtr group) {
  group->id_ = registry().next_id();
  registry().add(group->id_, group);
  return group;
}

GroupPtr group_of(int64_t id) {
  GroupPtr group = registry().find(id);
  TORCH_CHECK_VALUE(group, "there is no process group ", id, "; it may have been destroyed");
  return group;
}

void remove_group(int64_t id) { registry().remove(id); }

std::vector<GroupPtr> all_groups() { return registry().all(); }

}  // namespace fmoe::comm
