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

Table load(const char* name) {
  void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) C10_THROW_ERROR(DistBackendError, std::string("cannot open NCCL: ") + dlerror());
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
