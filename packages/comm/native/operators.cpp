// What the dispatcher knows of us, except the exchange of experts' rows (exchange.cpp). Groups and operations under way are
// numbers here. The forms called start_… do not wait: `wait` does, and their results are undefined until then.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include <cstring>

#include "gradient-operators.h"
#include "row-autograd.h"
#include "watch.h"

namespace fmoe::comm {

namespace {

// --- the life of groups -------------------------------------------------------------------------------------------------

std::vector<int64_t> range(int64_t size) {
  std::vector<int64_t> result(size);
  for (int64_t i = 0; i < size; ++i) result[i] = i;
  return result;
}

// Tells every rank where rank 0 serves the store. Without one the group works all the same, only timeouts know less.
void share_store(const GroupPtr& world, const std::string& host, double timeout) {
  constexpr int64_t kRoom = 512;
  const Tensor address = at::zeros({kRoom}, at::kByte);
  auto* bytes = reinterpret_cast<char*>(address.data_ptr<uint8_t>());
  const double limit = std::min(timeout, 30.0);
  if (world->rank == 0) {
    char own[256] = "";
    gethostname(own, sizeof own - 1);
    const std::string reachable = host.empty() ? own : host;
    try {
      const int port = start_store("127.0.0.1", 0, true, 0, world->size(), limit);
      std::snprintf(bytes, kRoom, "%d %s", port, reachable.c_str());
    } catch (const std::exception&) {
      bytes[0] = 0;
    }
  }
  // Not counted among the operations of the program.
  c10::make_intrusive<Work>(
      world, "the start", 0, world->transport->broadcast(address, 0), std::vector<Tensor>{address}, address)
      ->wait();
  if (world->rank == 0 || bytes[0] == 0) return;
  const char* space = std::strchr(bytes, ' ');
  try {
    start_store(space + 1, std::atoi(bytes), false, world->rank, world->size(), limit);
  } catch (const std::exception&) {
    // See above.
  }
}

// `host`: how other machines reach that of rank 0; empty for its name.
int64_t start_mpi_world(std::string_view shim, std::string_view host, double timeout) {
  int rank = 0, size = 0;
  auto transport = start_mpi(std::string(shim), rank, size);
  const auto world = add_group(c10::make_intrusive<Group>("world", rank, range(size), std::move(transport), timeout));
  if (size > 1) share_store(world, std::string(host), timeout);
  return world->id();
}

// NCCL's processes meet in a store on `host`, which rank 0 serves unless its launcher does.
int64_t start_nccl_world(
    std::string_view library,
    std::string_view host,
    int64_t port,
    int64_t rank,
    int64_t size,
    bool launcher_serves,
    double timeout) {
  TORCH_CHECK_VALUE(size >= 1 && rank >= 0 && rank < size, "start_nccl: there is no rank ", rank, " among ", size);
  start_store(std::string(host), static_cast<int>(port), rank == 0 && !launcher_serves, static_cast<int>(rank),
              static_cast<int>(size), std::min(timeout, 120.0));
  auto transport =
      make_nccl_transport(std::string(library), static_cast<int>(rank), static_cast<int>(size), "world", timeout);
  return add_group(c10::make_intrusive<Group>("world", static_cast<int>(rank), range(size), std::move(transport), timeout))->id();
}

int64_t make_local_group(std::string_view name) {
  return add_group(c10::make_intrusive<Group>(std::string(name), 0, range(1), make_local_transport(), 600.0))->id();
}

int64_t split_group(int64_t group, int64_t color, int64_t key, std::string_view name) {
  TORCH_CHECK_VALUE(color >= -1 && color <= INT32_MAX && key >= INT32_MIN && key <= INT32_MAX,
                    "split_group: color and key must be 32-bit integers, the color not negative");
  const auto made = group_of(group)->split(color, key, std::string(name));
  return made ? made->id() : 0;
}

int64_t group_rank(int64_t group) { return group_of(group)->rank; }
std::vector<int64_t> group_members(int64_t group) { return group_of(group)->members; }
std::string group_name(int64_t group) { return group_of(group)->name; }
std::string group_failure(int64_t group) { return group_of(group)->failure().value_or(""); }
double group_timeout(int64_t group) { return group_of(group)->timeout; }
void set_group_timeout(int64_t group, double seconds) {
  TORCH_CHECK_VALUE(seconds > 0, "set_group_timeout: a timeout must be positive, got ", seconds);
  const auto members = group_of(group);
  members->timeout = seconds;
  members->transport->set_timeout(seconds);
}
void fail_group(int64_t group, std::string_view reason) { group_of(group)->fail(std::string(reason)); }

// What has gone wrong in any group, one line for each.
std::string failures() {
  std::string text;
  for (const auto& group : all_groups()) {
    if (const auto reason = group->failure()) text += (text.empty() ? "" : "\n") + *reason;
  }
  return text;
}

// The orderly end. Operations that nobody waited for may still fail.
void finish() {
  const auto before = failures();
  drain_progress();
  const auto after = failures();
  if (after != before) throw_comm_error(after);
  stop_progress();
  stop_watch();
  remove_reducers();
  for (const auto& group : all_groups()) remove_group(group->id());
  finish_mpi();
}

constexpr unsigned kAbortSeconds = 3;

// Ends the process at once: kernels that wait for ranks that never come would hold up what the process does at its end.
void abort(int64_t code) {
  // MPI tells the other ranks before it ends this one, which takes for ever where their machines cannot be reached.
  std::signal(SIGALRM, SIG_DFL);
  alarm(kAbortSeconds);
  abort_mpi(static_cast<int>(code));
  std::fflush(nullptr);
  _exit(static_cast<int>(code));
}

// --- collectives ----------------------------------------------------------------------------------------------------------

// For operations that overwrite a tensor.
const Tensor& writable(const char* operation, const Tensor& tensor) {
  TORCH_CHECK(!(at::GradMode::is_enabled() && tensor.requires_grad()), operation,
              ": a tensor that requires grad cannot be overwritten; use noGrad()");
  tensor.unsafeGetTensorImpl()->bump_version();
  return tensor;
}

WorkPtr begin_all_reduce(const Tensor& tensor, std::string_view op, int64_t group) {
  const auto parsed = parse_reduce_op(op);
  const auto members = group_of(group);
  const Tensor& data = writable("all_reduce_", tensor);
  at::AutoDispatchBelowADInplaceOrView guard;
  return all_reduce(members, data, parsed);
}

WorkPtr begin_broadcast(const Tensor& tensor, int64_t root, int64_t group) {
  const auto members = group_of(group);
  const Tensor& data = writable("broadcast_", tensor);
  at::AutoDispatchBelowADInplaceOrView guard;
  return broadcast(members, data, root);
}

WorkPtr begin_send(const Tensor& tensor, int64_t to, int64_t tag, int64_t group) {
  at::AutoDispatchBelowADInplaceOrView guard;
  return send(group_of(group), tensor, to, tag);
}

WorkPtr begin_receive(const Tensor& tensor, int64_t from, int64_t tag, int64_t group) {
  const auto members = group_of(group);
  const Tensor& data = writable("receive_", tensor);
  at::AutoDispatchBelowADInplaceOrView guard;
  return receive(members, data, from, tag);
}

// What follows the arrival of the bytes is no part of a graph either.
Tensor finish_now(const WorkPtr& work) {
  at::AutoDispatchBelowADInplaceOrView guard;
  return work->wait();
}

Tensor& all_reduce_(Tensor& tensor, std::string_view op, int64_t group) {
  finish_now(begin_all_reduce(tensor, op, group));
  return tensor;
}
int64_t start_all_reduce_(Tensor& tensor, std::string_view op, int64_t group) {
  return add_work(begin_all_reduce(tensor, op, group));
}

Tensor& broadcast_(Tensor& tensor, int64_t root, int64_t group) {
  finish_now(begin_broadcast(tensor, root, group));
  return tensor;
}
int64_t start_broadcast_(Tensor& tensor, int64_t root, int64_t group) { return add_work(begin_broadcast(tensor, root, group)); }

void send_now(const Tensor& tensor, int64_t to, int64_t tag, int64_t group) { finish_now(begin_send(tensor, to, tag, group)); }
int64_t start_send(const Tensor& tensor, int64_t to, int64_t tag, int64_t group) {
  return add_work(begin_send(tensor, to, tag, group));
}

Tensor& receive_(Tensor& tensor, int64_t from, int64_t tag, int64_t group) {
  finish_now(begin_receive(tensor, from, tag, group));
  return tensor;
}
int64_t start_receive_(Tensor& tensor, int64_t from, int64_t tag, int64_t group) {
  return add_work(begin_receive(tensor, from, tag, group));
}

void barrier_now(int64_t group) { barrier(group_of(group))->wait(); }
int64_t start_barrier(int64_t group) { return add_work(barrier(group_of(group))); }

Tensor reduce_scatter_now(const Tensor& tensor, at::IntArrayRef rows, std::string_view op, int64_t group) {
  return differentiable_reduce_scatter(tensor, rows, op, group, nullptr);
}
std::tuple<Tensor, int64_t> start_reduce_scatter(
    const Tensor& tensor, at::IntArrayRef rows, std::string_view op, int64_t group) {
  int64_t work = 0;
  const Tensor result = differentiable_reduce_scatter(tensor, rows, op, group, &work);
  return {result, work};
}

Tensor all_gather_now(const Tensor& tensor, at::IntArrayRef rows, std::string_view gradient, int64_t group) {
  return differentiable_all_gather(tensor, rows, gradient, group, nullptr);
}
std::tuple<Tensor, int64_t> start_all_gather(
    const Tensor& tensor, at::IntArrayRef rows, std::string_view gradient, int64_t group) {
  int64_t work = 0;
  const Tensor result = differentiable_all_gather(tensor, rows, gradient, group, &work);
  return {result, work};
}

Tensor all_to_all_now(const Tensor& tensor, at::IntArrayRef send_rows, at::IntArrayRef receive_rows, int64_t group) {
  return differentiable_all_to_all(tensor, send_rows, receive_rows, group, nullptr);
}
std::tuple<Tensor, int64_t> start_all_to_all(
    const Tensor& tensor, at::IntArrayRef send_rows, at::IntArrayRef receive_rows, int64_t group) {
  int64_t work = 0;
  const Tensor result = differentiable_all_to_all(tensor, send_rows, receive_rows, group, &work);
  return {result, work};
}

// --- operations under way -----------------------------------------------------------------------------------------------

void wait(int64_t id) {
  const auto work = work_of(id);
  remove_work(id);
  finish_now(work);
}
bool is_done(int64_t id) { return work_of(id)->poll(); }
void forget(int64_t id) { remove_work(id); }
int64_t notifications() { return notification_pipe(); }

}  // namespace

TORCH_LIBRARY(fmoe_comm, library) {
  library.def("start_mpi(str shim, str host, float timeout) -> int", start_mpi_world);
  library.def(
      "start_nccl(str library, str host, int port, int rank, int size, bool launcher_serves, float timeout) -> int",
      start_nccl_world);
  library.def("make_local_group(str name) -> int", make_local_group);
  library.def("split_group(int group, int color, int key, str name) -> int", split_group);
  library.def("group_rank(int group) -> int", group_rank);
  library.def("group_members(int group) -> int[]", group_members);
  library.def("group_name(int group) -> str", group_name);
  library.def("group_failure(int group) -> str", group_failure);
  library.def("group_timeout(int group) -> float", group_timeout);
  library.def("set_group_timeout(int group, float seconds) -> ()", set_group_timeout);
  library.def("fail_group(int group, str reason) -> ()", fail_group);
  library.def("remove_group(int group) -> ()", remove_group);
  library.def("mpi_version() -> str", mpi_version);
  library.def("finish() -> ()", finish);
  library.def("abort(int code) -> ()", abort);

  library.def("all_reduce_(Tensor(a!) tensor, str op, int group) -> Tensor(a!)", all_reduce_);
  library.def("reduce_scatter(Tensor tensor, int[] rows_of_rank, str op, int group) -> Tensor", reduce_scatter_now);
  library.def("all_gather(Tensor tensor, int[] rows_of_rank, str gradient, int group) -> Tensor", all_gather_now);
  library.def("broadcast_(Tensor(a!) tensor, int root, int group) -> Tensor(a!)", broadcast_);
  library.def("all_to_all(Tensor tensor, int[] send_rows, int[] receive_rows, int group) -> Tensor", all_to_all_now);
  library.def("send(Tensor tensor, int to, int tag, int group) -> ()", send_now);
  library.def("receive_(Tensor(a!) tensor, int from, int tag, int group) -> Tensor(a!)", receive_);
  library.def("barrier(int group) -> ()", barrier_now);

  library.def("start_all_reduce_(Tensor(a!) tensor, str op, int group) -> int", start_all_reduce_);
  library.def("start_reduce_scatter(Tensor tensor, int[] rows_of_rank, str op, int group) -> (Tensor result, int work)",
              start_reduce_scatter);
  library.def("start_all_gather(Tensor tensor, int[] rows_of_rank, str gradient, int group) -> (Tensor result, int work)",
              start_all_gather);
  library.def("start_broadcast_(Tensor(a!) tensor, int root, int group) -> int", start_broadcast_);
  library.def("start_all_to_all(Tensor tensor, int[] send_rows, int[] receive_rows, int group) -> (Tensor result, int work)",
              start_all_to_all);
  library.def("start_send(Tensor tensor, int to, int tag, int group) -> int", start_send);
  library.def("start_receive_(Tensor(a!) tensor, int from, int tag, int group) -> int", start_receive_);
  library.def("start_barrier(int group) -> int", start_barrier);

  library.def("wait(int work) -> ()", wait);
  library.def("is_done(int work) -> bool", is_done);
  library.def("forget(int work) -> ()", forget);
  library.def("notifications() -> int", notifications);
}

}  // namespace fmoe::comm
