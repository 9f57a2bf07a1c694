#include "watch.h"

#include <c10/util/ScopeExit.h>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <cstdio>
#include <condition_variable>
#include <future>
#include <map>
#include <sstream>
#include <thread>

namespace fmoe::comm {

namespace {

using std::chrono::milliseconds;

struct Watch {
  std::mutex mutex;
  std::condition_variable changed;
  c10::intrusive_ptr<c10d::TCPStore> store;
  int rank = 0;
  milliseconds interval{250};
  std::thread thread;
  bool stopping = false;
  bool stopped = false;
};

// What may pass until the store answers. A connection that was cut is not an error for many minutes.
constexpr std::chrono::seconds kAnswer{2};

// Never destroyed, as the thread may outlive the statics of this library.
Watch& watch() {
  static auto* instance = new Watch;
  return *instance;
}

std::string key_of(int64_t rank) { return "fmoe/watch/" + std::to_string(rank); }

// One line a group: number, operation and name, after a line with a count that tells the living from the dead.
std::string report(int64_t beat) {
  std::ostringstream text;
  text << beat << '\n';
  for (const auto& group : all_groups()) {
    const auto progress = group->progress();
    text << progress.sequence << '\t' << progress.operation << '\t' << group->name << '\n';
  }
  return text.str();
}

struct Report {
  int64_t beat = -1;
  std::map<std::string, Progress> groups;
};

Report parse(const std::vector<uint8_t>& bytes) {
  Report result;
  std::istringstream text(std::string(bytes.begin(), bytes.end()));
  std::string line;
  if (std::getline(text, line)) result.beat = std::stoll(line);
  while (std::getline(text, line)) {
    const auto first = line.find('\t');
    const auto second = line.find('\t', first + 1);
    if (second == std::string::npos) continue;
    result.groups[line.substr(second + 1)] = {std::stoll(line), line.substr(first + 1, second - first - 1)};
  }
  return result;
}

void publish(int64_t beat) {
  const auto text = report(beat);
  watch().store->set(key_of(watch().rank), std::vector<uint8_t>(text.begin(), text.end()));
}

void run() {
  auto& state = watch();
  std::unique_lock<std::mutex> lock(state.mutex);
  // With the lock held.
  const auto stopped = c10::make_scope_exit([&] {
    state.stopped = true;
    state.changed.notify_all();
  });
  for (int64_t beat = 0; !state.stopping; ++beat) {
    lock.unlock();
    try {
      publish(beat);
    } catch (const std::exception&) {
      // The process that serves the store has ended; whoever misses it will say so.
    }
    lock.lock();
    state.changed.wait_for(lock, state.interval, [&] { return state.stopping; });
  }
}

// What the members of a group have written down.
std::vector<Report> read(const std::vector<int64_t>& ranks) {
  // On a thread that may wait for ever for a machine that cannot be reached, with all that it needs.
  auto task = std::make_shared<std::packaged_task<std::vector<Report>()>>([ranks, store = watch().store] {
    std::vector<Report> reports;
    for (const int64_t rank : ranks) {
      reports.push_back(store->check({key_of(rank)}) ? parse(store->get(key_of(rank))) : Report());
    }
    return reports;
  });
  auto reports = task->get_future();
  std::thread([task] { (*task)(); }).detach();
  if (reports.wait_for(kAnswer) != std::future_status::ready) throw_comm_error("no answer");
  return reports.get();
}

std::string listed(const std::vector<int>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < ranks.size(); ++i) {
    text += (i == 0 ? "" : i + 1 == ranks.size() ? " and " : ", ") + std::to_string(ranks[i]);
  }
  return text;
}

}  // namespace

int start_store(const std::string& host, int port, bool serve, int world_rank, int world_size, double timeout) {
  auto& state = watch();
  if (state.store) return state.store->getPort();
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(port);
  options.isServer = serve;
  options.waitWorkers = false;
  options.timeout = milliseconds(static_cast<int64_t>(timeout * 1000));
  // The other backend brings a copy of libuv, whose symbols a Node process has already.
  options.useLibUV = false;
  try {
    state.store = c10::make_intrusive<c10d::TCPStore>(host, options);
  } catch (const std::exception& error) {
    const auto* known = dynamic_cast<const c10::Error*>(&error);
    const std::string reason = known ? known->what_without_backtrace() : error.what();
    char limit[32];
    std::snprintf(limit, sizeof limit, "%.4g", timeout);
    throw_comm_error(
        "rank " + std::to_string(world_rank) +
        (serve ? " cannot serve the store on port " + std::to_string(port)
               : " cannot reach the store at " + host + ":" + std::to_string(port) + " within " + limit + " s") +
        ": " + reason);
  }
  state.rank = world_rank;
  // One server answers for all.
  state.interval = milliseconds(250) * std::max(1, world_size / 64);
  state.thread = std::thread(run);
  return state.store->getPort();
}

c10d::Store& store() {
  if (!watch().store) throw_comm_error("there is no store to meet in");
  return *watch().store;
}

std::string account_for(const Group& group, int64_t sequence, int peer) {
  auto& state = watch();
  if (!state.store) return "Which ranks are missing is not known, as there is no store.";
  try {
    const auto before = read(group.members);
    // So that what is read next is newer than the deadline.
    std::this_thread::sleep_for(2 * state.interval);
    const auto reports = read(group.members);
    std::vector<int> missing, silent;
    std::string details;
    for (int member = 0; member < group.size(); ++member) {
      if (member == group.rank || (peer >= 0 && member != peer)) continue;
      const Report& now = reports[member];
      const auto seen = now.groups.find(group.name);
      const Progress progress = seen == now.groups.end() ? Progress() : seen->second;
      if (now.beat == before[member].beat) silent.push_back(member);
      if (peer < 0 && progress.sequence >= sequence) continue;
      missing.push_back(member);
      details += "; rank " + std::to_string(member) +
                 (progress.operation.empty() ? " has begun nothing in this group"
                                             : " was last seen in " + progress.operation + " (number " +
                                                   std::to_string(progress.sequence) + ")");
    }
    std::string text = missing.empty() ? "All ranks have begun it"
                       : peer >= 0     ? "The other side" + details
                                       : "Missing: " + listed(missing) + details;
    if (!silent.empty()) text += "; no sign of life from " + listed(silent);
    return text + ".";
  } catch (const std::exception&) {
    return "Which ranks are missing is not known: rank 0 of the world, which serves the store at " + state.store->getHost() +
           ":" + std::to_string(state.store->getPort()) + ", has ended or its machine cannot be reached.";
  }
}

void stop_watch() {
  auto& state = watch();
  std::unique_lock<std::mutex> lock(state.mutex);
  if (!state.thread.joinable() || state.stopping) return;
  state.stopping = true;
  state.changed.notify_all();
  if (!state.changed.wait_for(lock, kAnswer, [&] { return state.stopped; })) {
    // It waits for a store that does not answer.
    state.thread.detach();
    return;
  }
  lock.unlock();
  state.thread.join();
  state.store.reset();
}

}  // namespace fmoe::comm
