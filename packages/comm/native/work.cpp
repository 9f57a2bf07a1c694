#include "work.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <sched.h>
#include <time.h>

#include <cstdio>

#include "signals.h"
#include "watch.h"

namespace fmoe::comm {

namespace {

using Clock = std::chrono::steady_clock;

Clock::time_point deadline_in(double seconds) {
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

void sleep_microseconds(long count) {
  const timespec time{0, count * 1000};
  nanosleep(&time, nullptr);
}

// How to wait between two looks. Looks that take their time have moved data, and the next one will too, or have left the core to
// others already. Else the core is offered to others, each time when they take it and now and then when nobody does; when nothing has
// happened for a while it is left to them for longer.
class Patience {
 public:
  void pause(Clock::time_point begin) {
    using std::chrono::microseconds;
    const auto end = Clock::now();
    if (end - begin > microseconds(5)) idle_since_ = end;
    const auto idle = end - idle_since_;
    if (idle >= std::chrono::milliseconds(2)) return sleep_microseconds(idle < std::chrono::milliseconds(100) ? 50 : 500);
    if (end - begin > microseconds(1) || (!wanted_ && ++looks_ % kLooks != 0)) return;
    sched_yield();
    wanted_ = Clock::now() - end > microseconds(2);
  }

 private:
  static constexpr int kLooks = 8;
  Clock::time_point idle_since_ = Clock::now();
  int looks_ = 0;
  bool wanted_ = false;
};

std::string seconds_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g s", seconds);
  return text;
}

std::string title_of(const Group& group, const std::string& operation, int64_t sequence) {
  const std::string number = sequence > 0 ? "number " + std::to_string(sequence) + " of " : "in ";
  return operation + " (" + number + "the group '" + group.name + "', rank " + std::to_string(group.rank) + " of " +
         std::to_string(group.size()) + ")";
}

// Why an operation ended at its deadline.
std::string lateness_of(const Group& group, const std::string& operation, int64_t sequence, int peer) {
  return title_of(group, operation, sequence) + " did not end within " + seconds_text(group.timeout) + ". " +
         account_for(group, sequence, peer);
}

std::string text_of(const std::exception& error) {
  const auto* known = dynamic_cast<const c10::Error*>(&error);
  return known ? known->what_without_backtrace() : error.what();
}

// Tensors and requests of operations that were given up: the transport may still write to them.
void abandon(RequestPtr request, std::vector<Tensor> tensors) {
  new std::pair<RequestPtr, std::vector<Tensor>>(std::move(request), std::move(tensors));
}

}  // namespace

void fail_to_begin(const GroupPtr& group, const std::string& operation, int64_t sequence, int peer) {
  std::string reason;
  try {
    throw;
  } catch (const DeadlinePassed&) {
    reason = lateness_of(*group, operation, sequence, peer);
  } catch (const c10::DistError& error) {
    reason = title_of(*group, operation, sequence) + ": " + text_of(error);
  }
  group->fail(reason);
  throw_comm_error(reason);
}

Work::Work(
    GroupPtr group,
    std::string operation,
    int64_t sequence,
    RequestPtr request,
    std::vector<Tensor> kept,
    Tensor result,
    std::function<void()> finish,
    int peer)
    : group_(std::move(group)),
      operation_(std::move(operation)),
      sequence_(sequence),
      peer_(peer),
      deadline_(deadline_in(group_->timeout)),
      request_(std::move(request)),
      kept_(std::move(kept)),
      result_(std::move(result)),
      finish_(std::move(finish)) {}

std::string Work::title() const { return title_of(*group_, operation_, sequence_); }

void Work::give_up(const std::string& reason) {
  std::vector<Tensor> tensors = kept_;
  tensors.push_back(result_);
  abandon(std::move(request_), std::move(tensors));
  group_->fail(reason);
  error_ = std::make_exception_ptr(c10::DistBackendError({__func__, __FILE__, 0}, reason));
}

bool Work::poll() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!request_) return true;
  try {
    if (request_->test()) {
      request_.reset();
      return true;
    }
    if (Clock::now() < deadline_) return false;
    give_up(lateness_of(*group_, operation_, sequence_, peer_));
  } catch (const std::exception& error) {
    give_up(title() + ": " + text_of(error));
  }
  return true;
}

// Ranks that are told to stop wait for each other a last time, and end their step before the program handles the signal. Only an
// operation that still does not end is given up.
constexpr auto kSignalGrace = std::chrono::seconds(2);
// Signals are watched only in waits of some length: to begin and end that takes as long as to send a message of many kilobytes.
constexpr auto kUnwatched = std::chrono::milliseconds(1);

// Waits for the request, whatever comes of it.
void Work::drive() {
  {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!request_) return;
    // A result on the host is nothing that a stream could wait for, nor is the arrival at a barrier.
    const bool on_host = !result_.defined() || result_.is_cpu();
    if (!on_host && request_->join_stream()) {
      if (joined_.exchange(true)) return;
      lock.unlock();
      watch_work(WorkPtr::reclaim_copy(this));
      return;
    }
  }
  if (poll()) return;
  const auto start = Clock::now();
  std::optional<SignalWatch> signals;
  std::optional<Clock::time_point> signalled;
  Patience patience;
  while (true) {
    const auto begin = Clock::now();
    if (poll()) return;
    if (!signals && begin - start > kUnwatched) signals.emplace();
    const int signal = signals ? signals->caught() : 0;
    if (signal != 0 && !signalled) signalled = begin;
    if (signalled && begin - *signalled > kSignalGrace) {
      std::lock_guard<std::mutex> lock(mutex_);
      give_up(title() + " was interrupted by " + signal_name(signal));
      return;
    }
    patience.pause(begin);
  }
}

Tensor Work::wait() {
  drive();
  std::lock_guard<std::mutex> lock(mutex_);
  if (error_) std::rethrow_exception(error_);
  if (finish_) {
    const auto finish = std::move(finish_);
    finish_ = nullptr;
    finish();
  }
  if (!request_) kept_.clear();
  return result_;
}

}  // namespace fmoe::comm
