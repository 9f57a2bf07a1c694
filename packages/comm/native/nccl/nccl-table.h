// The part of NCCL's interface that the transport uses, so that no header of NCCL or CUDA is needed to build and no library to
// load: libnccl is opened when the first group over NCCL is made. The values and signatures are those of NCCL's stable binary
// interface; nccl-table-check.cpp compares them with nccl.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fmoe::comm::nccl {

using Comm = struct CommOpaque*;
using Stream = void*;

struct UniqueId {
  char internal[128];
};

enum Result : int { kSuccess = 0, kInvalidUsage = 5, kInProgress = 7 };

constexpr int kNoColor = -1;

enum Type : int {
  kInt8 = 0,
  kUint8 = 1,
  kInt32 = 2,
  kUint32 = 3,
  kInt64 = 4,
  kUint64 = 5,
  kFloat16 = 6,
  kFloat32 = 7,
  kFloat64 = 8,
  kBfloat16 = 9
};

enum Op : int { kSum = 0, kProd = 1, kMax = 2, kMin = 3, kAvg = 4 };

// NCCL's settings in their first form, of 2.14; later ones are longer, and the library fills in what is missing by `size` and
// `version`.
struct Config {
  size_t size = sizeof(Config);
  unsigned magic = 0xcafebeef;
  unsigned version = 21400;
  int blocking = 0;
};

struct Table {
  int (*get_unique_id)(UniqueId*);
  int (*init)(Comm*, int size, UniqueId, int rank, Config*);
  int (*split)(Comm, int color, int key, Comm*, Config*);
  int (*finalize)(Comm);
  int (*destroy)(Comm);
  int (*abort)(Comm);
  int (*async_error)(Comm, int*);
  const char* (*error_string)(int);
  const char* (*last_error)(Comm);
  int (*group_start)();
  int (*group_end)();
  int (*all_reduce)(const void*, void*, size_t, int, int, Comm, Stream);
  int (*reduce)(const void*, void*, size_t, int, int, int root, Comm, Stream);
  int (*reduce_scatter)(const void*, void*, size_t, int, int, Comm, Stream);
  int (*all_gather)(const void*, void*, size_t, int, Comm, Stream);
  int (*broadcast)(const void*, void*, size_t, int, int root, Comm, Stream);
  int (*send)(const void*, size_t, int, int peer, Comm, Stream);
  int (*receive)(void*, size_t, int, int peer, Comm, Stream);
};

// Throws c10::DistBackendError when the library cannot be opened or lacks a function.
const Table& open(const char* library);

}  // namespace fmoe::comm::nccl
