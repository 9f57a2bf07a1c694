// Operations that were begun and that nobody waits for yet: a thread moves them on, and a pipe tells the program when some are
// done, so that its event loop need not poll.
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <thread>

#include "work.h"

namespace fmoe::comm {

namespace {

struct Pending {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<int64_t, WorkPtr> works;  // until they are removed
  std::vector<WorkPtr> running;
  int64_t next = 1;
  int pipe[2] = {-1, -1};
  std::thread thread;
  bool stopping = false;
};

// Never destroyed, as the thread may outlive the statics of this library.
Pending& pending() {
  static auto* instance = new Pending;
  return *instance;
}

void notify() {
  const int end = pending().pipe[1];
  // A full pipe is notice enough.
  if (end >= 0 && write(end, "", 1) < 0) return;
}

void run() {
  auto& state = pending();
  std::unique_lock<std::mutex> lock(state.mutex);
  while (!state.stopping) {
    if (state.running.empty()) {
      state.changed.wait(lock);
      continue;
    }
    auto works = state.running;
    lock.unlock();
    std::vector<WorkPtr> over;
    bool wanted = false;
    for (const auto& work : works) {
      if (!work->joined()) wanted = true;
      if (work->poll()) over.push_back(work);
    }
    if (over.empty()) {
      // The cores belong to the computation.
      const timespec pause{0, wanted ? 50'000 : 2'000'000};
      nanosleep(&pause, nullptr);
    }
    works.clear();
    lock.lock();
    if (over.empty()) continue;
    auto& running = state.running;
    running.erase(
        std::remove_if(
            running.begin(), running.end(),
            [&](const WorkPtr& work) { return std::find(over.begin(), over.end(), work) != over.end(); }),
        running.end());
    state.changed.notify_all();
    notify();
  }
}

// With the lock held.
void run_on_thread(Pending& state, WorkPtr work) {
  if (std::find(state.running.begin(), state.running.end(), work) == state.running.end()) {
    state.running.push_back(std::move(work));
  }
  if (!state.thread.joinable() && !state.stopping) state.thread = std::thread(run);
  state.changed.notify_all();
}

}  // namespace

void watch_work(WorkPtr work) {
  auto& state = pending();
  std::lock_guard<std::mutex> lock(state.mutex);
  run_on_thread(state, std::move(work));
}

int64_t add_work(WorkPtr work) {
  auto& state = pending();
  std::lock_guard<std::mutex> lock(state.mutex);
  const int64_t id = state.next++;
  state.works.emplace(id, work);
  run_on_thread(state, std::move(work));
  return id;
}

WorkPtr work_of(int64_t id) {
  auto& state = pending();
  std::lock_guard<std::mutex> lock(state.mutex);
  const auto found = state.works.find(id);
  TORCH_CHECK_VALUE(found != state.works.end(), "there is no operation ", id, "; its result was taken already");
  return found->second;
}

void remove_work(int64_t id) {
  auto& state = pending();
  std::lock_guard<std::mutex> lock(state.mutex);
  state.works.erase(id);
}

int notification_pipe() {
  auto& state = pending();
  std::lock_guard<std::mutex> lock(state.mutex);
  if (state.pipe[0] < 0 && pipe2(state.pipe, O_CLOEXEC | O_NONBLOCK) != 0) throw_comm_error("cannot make a pipe");
  return state.pipe[0];
}

void drain_progress() {
  auto& state = pending();
  std::unique_lock<std::mutex> lock(state.mutex);
  if (state.thread.joinable()) state.changed.wait(lock, [&] { return state.running.empty(); });
}

void stop_progress() {
  auto& state = pending();
  {
    std::lock_guard<std::mutex> lock(state.mutex);
    state.stopping = true;
    if (!state.thread.joinable()) return;
  }
  state.changed.notify_all();
  state.thread.join();
}

}  // namespace fmoe::comm
