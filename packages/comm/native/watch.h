// The side channel: libtorch's TCPStore, where each process writes down from time to time what it does in each group. A process
// whose operation timed out reads there who is missing. NCCL's communicators meet in the same store.
#pragma once

#include <torch/csrc/distributed/c10d/Store.hpp>

#include <string>

#include "group.h"

namespace fmoe::comm {

// Connects to the store on `host`, or serves it (port 0: any), within `timeout` seconds, and begins to publish. Returns the port.
int start_store(const std::string& host, int port, bool serve, int world_rank, int world_size, double timeout);
// Throws where there is none.
c10d::Store& store();
// What the other members of the group (or only `peer`, unless -1) were last seen doing, for an operation of that number that timed
// out: a sentence.
std::string account_for(const Group& group, int64_t sequence, int peer);
void stop_watch();

}  // namespace fmoe::comm
