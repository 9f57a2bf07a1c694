#include "nccl-communicator.h"

#include <c10/core/DeviceGuard.h>
#include <c10/util/Exception.h>

#include <future>
#include <thread>

namespace fmoe::comm::nccl {

namespace {

// Time that whoever tells of a failure waits for an abort to end, and before that for a call to return.
constexpr auto kAbortPatience = std::chrono::seconds(5);
constexpr auto kCallPatience = std::chrono::seconds(1);

}  // namespace

int Communicator::on_thread(const char* what, std::function<int()> call) {
  return thread_.run(
      [call = std::move(call), device = device_] {
        const c10::DeviceGuard guard(device);
        return call();
      },
      timeout, what);
}

void Communicator::init(int size, const UniqueId& id, int rank, const c10::Device& device) {
  device_ = device;
  const int result = on_thread("ncclCommInitRankConfig", [&table = table_, open = open_, size, id, rank] {
    const std::lock_guard<std::timed_mutex> lock(open->mutex);
    Config config;
    Comm made = nullptr;
    const int told = table.init(&made, size, id, rank, &config);
    open->comm = made;
    return told;
  });
  if (result != kSuccess) fail(result, "ncclCommInitRankConfig");
}

std::shared_ptr<Communicator> Communicator::split(int color, int key) {
  auto child = std::make_shared<Communicator>(table_, timeout.load());
  child->device_ = device_;
  run("ncclCommSplit", [&table = table_, color, key, open = child->open_](Comm comm) {
    Config config;
    Comm made = nullptr;
    const int told = table.split(comm, color < 0 ? kNoColor : color, key, &made, &config);
    open->comm = made;
    return told;
  });
  if (color < 0) return nullptr;
  if (child->open_->comm == nullptr) C10_THROW_ERROR(DistBackendError, "NCCL: ncclCommSplit gave no communicator");
  return child;
}

void Communicator::run(const char* what, std::function<int(Comm)> call) {
  const int result = on_thread(what, [open = open_, call = std::move(call)] {
    const std::lock_guard<std::timed_mutex> lock(open->mutex);
    const Comm comm = open->comm;
    return comm ? call(comm) : static_cast<int>(kInvalidUsage);
  });
  if (result != kSuccess) fail(result, what);
}

void Communicator::check(const char* what) {
  int result = kSuccess;
  {
    // Not while another thread calls: it may not return, and whoever asks has others to look after.
    const std::unique_lock<std::timed_mutex> lock(open_->mutex, std::try_to_lock);
    if (!lock) return;
    const Comm comm = open_->comm;
    const int error = comm ? table_.async_error(comm, &result) : static_cast<int>(kInvalidUsage);
    if (error != kSuccess) result = error;
  }
  if (result != kSuccess) fail(result, what);
}

void Communicator::fail(int result, const char* what) {
  if (aborted_) C10_THROW_ERROR(DistBackendError, std::string("NCCL: ") + what + ": the communicator was given up");
  if (result == kInProgress) {
    C10_THROW_ERROR(DistBackendError, std::string("NCCL: ") + what + ": NCCL_COMM_BLOCKING=0 is not supported; unset it");
  }
  // A text of the whole library's, so the communicator need not be there any more.
  const char* more = table_.last_error(nullptr);
  C10_THROW_ERROR(DistBackendError, std::string("NCCL: ") + what + ": " + table_.error_string(result) +
                                        (more && *more ? std::string(" (") + more + ")" : ""));
}

void Communicator::abort() {
  aborted_ = true;
  Comm comm = nullptr;
  {
    const std::unique_lock<std::timed_mutex> lock(open_->mutex, kCallPatience);
    // NCCL frees what a call that has not returned is using. So a call on the thread of its own, which nobody waits for any more,
    // is left alone. One that was made here is in the way of its caller until the GPU goes on, which takes an abort: it begins
    // with what releases the call, and frees after the GPU is done.
    if (!lock && !called_here_) return;
    comm = open_->comm.exchange(nullptr);
  }
  if (comm == nullptr) return;
  // It frees memory of the GPU, which may wait for the kernels of other communicators, and these for a rank that never comes.
  // That must not keep anybody from telling what has happened.
  auto ended = std::make_shared<std::promise<void>>();
  std::thread([&table = table_, comm, device = device_, ended] {
    const c10::DeviceGuard guard(device);
    table.abort(comm);
    ended->set_value();
  }).detach();
  ended->get_future().wait_for(kAbortPatience);
}

void Communicator::close(double seconds) {
  timeout = seconds;
  try {
    run("ncclCommFinalize", [&table = table_](Comm comm) { return table.finalize(comm); });
    run("ncclCommDestroy", [&table = table_, open = open_](Comm comm) {
      open->comm = nullptr;
      return table.destroy(comm);
    });
  } catch (const std::exception&) {
    abort();
  }
}

}  // namespace fmoe::comm::nccl
