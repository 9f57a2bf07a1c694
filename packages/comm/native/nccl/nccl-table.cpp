#include "nccl-table.h"

#include <c10/util/Exception.h>
#include <dlfcn.h>

#include <string>

namespace fmoe::comm::nccl {

namespace {

template <typename Function>
void find(void* library, const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(library, name));
  if (function == nullptr) {
    C10_THROW_ERROR(DistBackendError, std::string("this NCCL has no ") + name + "; version 2.18 or newer is needed");
  }
}

// Where PyPI's packages put it, seen from libtorch beside them.
std::string beside_libtorch(const std::string& name) {
  Dl_info found;
  if (dladdr(reinterpret_cast<void*>(&c10::GetExceptionString), &found) == 0 || found.dli_fname == nullptr) return name;
  const std::string path = found.dli_fname;
  return path.substr(0, path.rfind('/') + 1) + "../../nvidia/nccl/lib/" + name;
}

// By its name it is the one that libtorch has loaded, where libtorch links NCCL.
void* open_library(const std::string& name) {
  if (void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
  const std::string problem = dlerror();
  if (name.find('/') == std::string::npos) {
    if (void* library = dlopen(beside_libtorch(name).c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
  }
  C10_THROW_ERROR(DistBackendError, "cannot open NCCL: " + problem + ". Install it, or name its file in FMOE_NCCL_LIBRARY");
}

Table load(const char* name) {
  void* library = open_library(name);
  Table table;
  find(library, "ncclGetUniqueId", table.get_unique_id);
  find(library, "ncclCommInitRankConfig", table.init);
  find(library, "ncclCommSplit", table.split);
  find(library, "ncclCommFinalize", table.finalize);
  find(library, "ncclCommDestroy", table.destroy);
  find(library, "ncclCommAbort", table.abort);
  find(library, "ncclCommGetAsyncError", table.async_error);
  find(library, "ncclGetErrorString", table.error_string);
  find(library, "ncclGetLastError", table.last_error);
  find(library, "ncclGroupStart", table.group_start);
  find(library, "ncclGroupEnd", table.group_end);
  find(library, "ncclAllReduce", table.all_reduce);
  find(library, "ncclReduce", table.reduce);
  find(library, "ncclReduceScatter", table.reduce_scatter);
  find(library, "ncclAllGather", table.all_gather);
  find(library, "ncclBroadcast", table.broadcast);
  find(library, "ncclSend", table.send);
  find(library, "ncclRecv", table.receive);
  return table;
}

}  // namespace

const Table& open(const char* library) {
  static const Table table = load(library);
  return table;
}

}  // namespace fmoe::comm::nccl
