#include "debug.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <c10/core/ScalarType.h>

#include <cstdlib>
#include <cstring>
#include <map>

#include "work.h"

namespace fmoe::comm {

namespace {

constexpr const char* kOperations[] = {
    "all_reduce_", "reduce_scatter", "all_gather", "broadcast_",     "all_to_all",
    "barrier",     "split",          "exchange_counts", "global_scatter", "global_gather"};

constexpr int64_t kFields = 12;  // operation, dtype, detail, dimensions, sizes
constexpr int64_t kSizes = kFields - 4;

bool enabled() {
  static const bool set = [] {
    const char* value = std::getenv("FMOE_COMM_DEBUG");
    return value != nullptr && std::strcmp(value, "1") == 0;
  }();
  return set;
}

int64_t number_of(const char* operation) {
  int64_t number = 0;
  for (const char* name : kOperations) {
    if (std::strcmp(name, operation) == 0) return number;
    ++number;
  }
  return -1;
}

void describe(const Description& description, int64_t* fields) {
  const auto& tensor = description.tensor;
  fields[0] = number_of(description.operation);
  fields[1] = tensor.defined() ? static_cast<int64_t>(tensor.scalar_type()) : -1;
  fields[2] = description.detail;
  fields[3] = tensor.defined() ? tensor.dim() : 0;
  for (int64_t dim = 0; dim < kSizes; ++dim) {
    fields[4 + dim] = dim >= fields[3] ? 0 : dim == 0 && description.rows_differ ? -1 : tensor.size(dim);
  }
}

std::string text_of(const int64_t* fields) {
  std::string text = fields[0] < 0 ? "an operation" : kOperations[fields[0]];
  if (fields[1] < 0) return text;
  text += " of " + c10::getDtypeNames(static_cast<at::ScalarType>(fields[1])).first + " [";
  for (int64_t dim = 0; dim < fields[3] && dim < kSizes; ++dim) {
    text += (dim == 0 ? "" : ", ") + (fields[4 + dim] < 0 ? std::string("rows") : std::to_string(fields[4 + dim]));
  }
  return text + "] with setting " + std::to_string(fields[2]);
}

std::string numbers(const int64_t* values, int64_t count) {
  std::string text = "[";
  for (int64_t i = 0; i < count; ++i) text += (i == 0 ? "" : ", ") + std::to_string(values[i]);
  return text + "]";
}

[[noreturn]] void differ(const GroupPtr& group, const std::string& what) {
  throw_comm_error("the ranks of the group '" + group->name + "' do not agree: " + what);
}

}  // namespace

void compare_ranks(const GroupPtr& group, const Description& description) {
  if (!enabled() || group->size() == 1) return;
  const int64_t size = group->size(), width = kFields + 2 * size;
  const Tensor mine = at::full({1, width}, 0, at::kLong);
  auto* own = mine.data_ptr<int64_t>();
  describe(description, own);
  for (size_t i = 0; i < description.rows.size(); ++i) own[kFields + i] = description.rows[i];
  for (size_t i = 0; i < description.more_rows.size(); ++i) own[kFields + size + i] = description.more_rows[i];

  const auto& transport = *group->transport;
  const bool direct = transport.takes(mine.device());
  const Tensor input = direct ? mine : transport.make_stage(mine).copy_(mine);
  const Tensor output = input.new_empty({size, width});
  const std::string label = std::string("the comparison before ") + description.operation;
  const int64_t sequence = group->enter(label);
  auto request = begin(group, label, sequence, [&] { return group->transport->all_gather(input, output, Counts(size, 1)); });
  const Tensor all = direct ? output : at::empty({size, width}, at::kLong);
  auto work = c10::make_intrusive<Work>(
      group, label, sequence, std::move(request), std::vector<Tensor>{input, output}, all, [&] {
        if (!direct) all.copy_(output);
      });
  work->wait();
  const auto* fields = all.const_data_ptr<int64_t>();
  const auto of = [&](int64_t rank) { return fields + rank * width; };

  // The most frequent description is taken for the right one.
  std::map<std::string, std::vector<int64_t>> callers;
  for (int64_t rank = 0; rank < size; ++rank) callers[text_of(of(rank))].push_back(rank);
  if (callers.size() > 1) {
    std::string text;
    for (const auto& [call, ranks] : callers) {
      text += text.empty() ? "" : "; ";
      text += (ranks.size() == 1 ? "rank " : "ranks ");
      for (size_t i = 0; i < ranks.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(ranks[i]);
      text += (ranks.size() == 1 ? " calls " : " call ") + call;
    }
    differ(group, text);
  }
  if (description.rows.empty()) return;
  for (int64_t rank = 0; rank < size; ++rank) {
    if (!description.more_rows.empty()) {
      for (int64_t other = 0; other < size; ++other) {
        const int64_t sent = of(rank)[kFields + other], expected = of(other)[kFields + size + rank];
        if (sent == expected) continue;
        differ(group, std::string(description.operation) + ": rank " + std::to_string(rank) + " sends " + std::to_string(sent) +
                          " rows to rank " + std::to_string(other) + ", which expects " + std::to_string(expected));
      }
    } else if (std::memcmp(of(rank) + kFields, of(0) + kFields, size * sizeof(int64_t)) != 0) {
      differ(group, std::string(description.operation) + ": rank " + std::to_string(rank) + " counts rows of " +
                        numbers(of(rank) + kFields, size) + ", rank 0 of " + numbers(of(0) + kFields, size));
    }
  }
}

}  // namespace fmoe::comm
