#include "nccl-communicator.h"

#include <c10/core/DeviceGuard.h>
#include <c10/util/Exception.h>
#include <sched.h>
#include <time.h>

#include <chrono>
#include <future>
#include <thread>

#include "signals.h"
#include "transport.h"

namespace fmoe::comm::nccl {

namespace {

using Clock = std::chrono::steady_clock;

// A look at what NCCL's thread does. It needs a core itself, and some tens of microseconds.
void pause(Clock::time_point since) {
  if (Clock::now() - since < std::chrono::milliseconds(1)) {
    sched_yield();
  } else {
    const timespec time{0, 50'000};
    nanosleep(&time, nullptr);
  }
}

// Time for the others to come after a signal (work.cpp).
constexpr auto kSignalGrace = std::chrono::seconds(2);
// Time that whoever tells of a failure waits for an abort to end.
constexpr auto kAbortPatience = std::chrono::seconds(5);

}  // namespace

void Communicator::init(int size, const UniqueId& id, int rank, const c10::Device& device) {
  device_ = device;
  Config config;
  int result = kSuccess;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    result = table_.init(&comm_, size, id, rank, &config);
  }
  settle(result, "ncclCommInitRankConfig");
}

std::shared_ptr<Communicator> Communicator::split(int color, int key) {
  // NCCL writes the result when it is through, whether or not anybody still waits for it.
  auto made = std::make_unique<Comm>(nullptr);
  Config config;
  try {
    // The call itself returns a success; the state of this communicator is that of the split.
    run("ncclCommSplit", [&](Comm comm) {
      const int result = table_.split(comm, color < 0 ? kNoColor : color, key, made.get(), &config);
      return result == kSuccess ? static_cast<int>(kInProgress) : result;
    });
  } catch (...) {
    static_cast<void>(made.release());
    throw;
  }
  if (color < 0) return nullptr;
  if (*made == nullptr) C10_THROW_ERROR(DistBackendError, "NCCL: ncclCommSplit gave no communicator");
  auto result = std::make_shared<Communicator>(table_, timeout.load());
  result->device_ = device_;
  result->comm_ = *made;
  result->settle(kInProgress, "ncclCommSplit");
  return result;
}

int Communicator::state() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!comm_) return kInvalidUsage;
  int result = kSuccess;
  const int error = table_.async_error(comm_, &result);
  return error == kSuccess ? result : error;
}

void Communicator::settle(int result, const char* what) {
  if (result == kInProgress) {
    const SignalWatch signals;
    const auto begin = Clock::now();
    const auto limit = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeout.load()));
    Clock::time_point signalled{};
    while ((result = state()) == kInProgress) {
      const auto now = Clock::now();
      if (now - begin > limit) throw DeadlinePassed{};
      if (const int signal = signals.caught()) {
        if (signalled == Clock::time_point{}) signalled = now;
        if (now - signalled > kSignalGrace) {
          C10_THROW_ERROR(DistBackendError, std::string(what) + " was interrupted by " + signal_name(signal));
        }
      }
      pause(begin);
    }
  }
  if (result != kSuccess) fail(result, what);
}

void Communicator::check(const char* what) {
  const int now = state();
  // Another thread's call may be under way.
  if (now != kSuccess && now != kInProgress) fail(now, what);
}

void Communicator::fail(int result, const char* what) {
  if (aborted_) C10_THROW_ERROR(DistBackendError, std::string("NCCL: ") + what + ": the communicator was given up");
  // A text of the whole library's, so the communicator need not be there any more.
  const char* more = table_.last_error(nullptr);
  C10_THROW_ERROR(DistBackendError, std::string("NCCL: ") + what + ": " + table_.error_string(result) +
                                        (more && *more ? std::string(" (") + more + ")" : ""));
}

void Communicator::abort() {
  Comm comm = nullptr;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    aborted_ = true;
    std::swap(comm, comm_);
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
    const c10::DeviceGuard guard(device_);
    run("ncclCommFinalize", [&](Comm comm) { return table_.finalize(comm); });
    std::lock_guard<std::mutex> lock(mutex_);
    if (comm_) table_.destroy(comm_);
    comm_ = nullptr;
  } catch (const std::exception&) {
    abort();
  }
}

}  // namespace fmoe::comm::nccl
