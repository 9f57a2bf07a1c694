// Objects that the dispatcher knows by number.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

namespace fmoe::comm {

// Ptr: a pointer that counts its owners.
template <typename Ptr>
class Registry {
 public:
  int64_t next_id() {
    std::lock_guard<std::mutex> lock(mutex_);
    return next_++;
  }

  void add(int64_t id, Ptr object) {
    std::lock_guard<std::mutex> lock(mutex_);
    objects_.emplace(id, std::move(object));
  }

  // Empty where there is none.
  Ptr find(int64_t id) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = objects_.find(id);
    return found == objects_.end() ? Ptr() : found->second;
  }

  void remove(int64_t id) {
    Ptr last;  // dies outside of the lock
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = objects_.find(id);
    if (found == objects_.end()) return;
    last = std::move(found->second);
    objects_.erase(found);
  }

  void clear() {
    std::map<int64_t, Ptr> last;  // as above
    std::lock_guard<std::mutex> lock(mutex_);
    last.swap(objects_);
  }

  std::vector<Ptr> all() {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<Ptr> result;
    for (const auto& entry : objects_) result.push_back(entry.second);
    return result;
  }

 private:
  std::mutex mutex_;
  std::map<int64_t, Ptr> objects_;
  int64_t next_ = 1;
};

}  // namespace fmoe::comm
