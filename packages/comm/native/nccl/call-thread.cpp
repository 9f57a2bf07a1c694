#include "call-thread.h"

#include <c10/util/Exception.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <optional>
#include <string>
#include <thread>

#include "signals.h"
#include "transport.h"

namespace fmoe::comm {

using Clock = std::chrono::steady_clock;

namespace {

// A call that waits for nobody is over before it would pay to sleep.
constexpr auto kSpin = std::chrono::microseconds(200);
// How often a caller that sleeps looks for signals.
constexpr auto kLook = std::chrono::milliseconds(20);
// Time for the others to come after a signal (work.cpp).
constexpr auto kSignalGrace = std::chrono::seconds(2);

}  // namespace

// Where a call lies and its result: of the thread and of its owner, as either may outlive the other.
struct CallThread::Desk {
  std::mutex mutex;
  std::condition_variable changed;
  std::function<int()> call;  // empty while there is none
  std::exception_ptr error;
  int result = 0;
  std::atomic<bool> returned{true};
  bool closed = false;

  void serve() {
    std::unique_lock<std::mutex> lock(mutex);
    while (true) {
      changed.wait(lock, [this] { return closed || call; });
      if (!call) return;
      auto taken = std::move(call);
      call = nullptr;
      lock.unlock();
      try {
        result = taken();
      } catch (...) {
        error = std::current_exception();
      }
      taken = nullptr;
      lock.lock();
      returned = true;
      changed.notify_all();
    }
  }
};

CallThread::~CallThread() {
  if (!desk_) return;
  std::lock_guard<std::mutex> lock(desk_->mutex);
  desk_->closed = true;
  desk_->changed.notify_all();
}

int CallThread::run(std::function<int()> call, double seconds, const char* what) {
  const std::lock_guard<std::mutex> caller(callers_);
  if (!desk_) {
    desk_ = std::make_shared<Desk>();
    std::thread([desk = desk_] { desk->serve(); }).detach();
  }
  Desk& desk = *desk_;
  if (!desk.returned) C10_THROW_ERROR(DistBackendError, std::string(what) + ": an earlier call has not returned");
  const auto begin = Clock::now();
  const auto limit = begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  {
    std::lock_guard<std::mutex> lock(desk.mutex);
    desk.call = std::move(call);
    desk.error = nullptr;
    desk.returned = false;
  }
  desk.changed.notify_all();
  while (!desk.returned && Clock::now() - begin < kSpin) sched_yield();

  std::unique_lock<std::mutex> lock(desk.mutex);
  if (!desk.returned) {
    const SignalWatch signals;
    std::optional<Clock::time_point> signalled;
    while (!desk.changed.wait_until(lock, std::min(limit, Clock::now() + kLook), [&] { return desk.returned.load(); })) {
      const auto now = Clock::now();
      if (now >= limit) throw DeadlinePassed{};
      const int signal = signals.caught();
      if (signal != 0 && !signalled) signalled = now;
      if (signalled && now - *signalled > kSignalGrace) {
        C10_THROW_ERROR(DistBackendError, std::string(what) + " was interrupted by " + signal_name(signal));
      }
    }
  }
  if (desk.error) std::rethrow_exception(desk.error);
  return desk.result;
}

}  // namespace fmoe::comm
