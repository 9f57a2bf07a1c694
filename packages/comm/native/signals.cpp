#include "signals.h"

#include <signal.h>

#include <atomic>
#include <mutex>

namespace fmoe::comm {

namespace {

constexpr int kWatched[] = {SIGINT, SIGTERM};

// Counts arrivals; which one came is in `last`.
std::atomic<int> arrivals{0};
std::atomic<int> last{0};

struct sigaction earlier[2];
std::atomic<bool> replaced[2];
int watchers = 0;

std::mutex& watch_mutex() {
  static auto* mutex = new std::mutex;
  return *mutex;
}

void note(int signal, siginfo_t* info, void* context) {
  last = signal;
  ++arrivals;
  for (int i = 0; i < 2; ++i) {
    if (kWatched[i] != signal) continue;
    if (earlier[i].sa_flags & SA_SIGINFO) {
      earlier[i].sa_sigaction(signal, info, context);
    } else {
      earlier[i].sa_handler(signal);
    }
  }
}

}  // namespace

SignalWatch::SignalWatch() : before_(arrivals) {
  std::lock_guard<std::mutex> lock(watch_mutex());
  if (watchers++ > 0) return;
  for (int i = 0; i < 2; ++i) {
    sigaction(kWatched[i], nullptr, &earlier[i]);
    const bool handled =
        (earlier[i].sa_flags & SA_SIGINFO) || (earlier[i].sa_handler != SIG_DFL && earlier[i].sa_handler != SIG_IGN);
    replaced[i] = handled;
    if (!handled) continue;
    struct sigaction own = earlier[i];
    own.sa_sigaction = note;
    own.sa_flags |= SA_SIGINFO;
    sigaction(kWatched[i], &own, nullptr);
  }
}

SignalWatch::~SignalWatch() {
  std::lock_guard<std::mutex> lock(watch_mutex());
  if (--watchers > 0) return;
  for (int i = 0; i < 2; ++i) {
    if (replaced[i].exchange(false)) sigaction(kWatched[i], &earlier[i], nullptr);
  }
}

int SignalWatch::caught() const { return arrivals == before_ ? 0 : last.load(); }

const char* signal_name(int signal) { return signal == SIGINT ? "SIGINT" : "SIGTERM"; }

}  // namespace fmoe::comm
