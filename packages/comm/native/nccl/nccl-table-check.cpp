// Compiled, never linked, where NCCL's header is at hand (-DFMOE_NCCL_INCLUDE=…): fails when nccl-table.h says something else.
#include <nccl.h>

#include <type_traits>

#include "nccl-table.h"

namespace fmoe::comm::nccl {

static_assert(sizeof(UniqueId) == sizeof(ncclUniqueId));
static_assert(kSuccess == int(ncclSuccess) && kInvalidUsage == int(ncclInvalidUsage) && kInProgress == int(ncclInProgress));
static_assert(kNoColor == NCCL_SPLIT_NOCOLOR);
static_assert(kInt8 == int(ncclInt8) && kUint8 == int(ncclUint8) && kInt32 == int(ncclInt32) && kUint32 == int(ncclUint32));
static_assert(kInt64 == int(ncclInt64) && kUint64 == int(ncclUint64) && kFloat16 == int(ncclFloat16));
static_assert(kFloat32 == int(ncclFloat32) && kFloat64 == int(ncclFloat64) && kBfloat16 == int(ncclBfloat16));
static_assert(kSum == int(ncclSum) && kProd == int(ncclProd) && kMax == int(ncclMax));
static_assert(kMin == int(ncclMin) && kAvg == int(ncclAvg));
static_assert(sizeof(ncclResult_t) == sizeof(int) && sizeof(ncclDataType_t) == sizeof(int) && sizeof(ncclRedOp_t) == sizeof(int));
static_assert(offsetof(Config, blocking) == offsetof(ncclConfig_t, blocking) && offsetof(Config, magic) == offsetof(ncclConfig_t, magic));
static_assert(offsetof(Config, version) == offsetof(ncclConfig_t, version));

// One of our types stands for each of NCCL's, of the same size and kind.
template <typename Ours, typename Theirs>
constexpr bool same_argument() {
  if constexpr (std::is_enum_v<Theirs>) return std::is_same_v<Ours, int>;
  if constexpr (std::is_pointer_v<Ours> && std::is_pointer_v<Theirs>) return true;
  if constexpr (std::is_class_v<Ours>) return sizeof(Ours) == sizeof(Theirs);
  return std::is_same_v<Ours, Theirs>;
}

template <typename Ours, typename Theirs>
struct same_signature : std::false_type {};

template <typename R1, typename... A1, typename R2, typename... A2>
struct same_signature<R1 (*)(A1...), R2 (*)(A2...)>
    : std::bool_constant<sizeof...(A1) == sizeof...(A2) && same_argument<R1, R2>() && (same_argument<A1, A2>() && ...)> {};

#define CHECK_SIGNATURE(member, function) \
  static_assert(same_signature<decltype(Table::member), decltype(&function)>::value, #function)

CHECK_SIGNATURE(get_unique_id, ncclGetUniqueId);
CHECK_SIGNATURE(init, ncclCommInitRankConfig);
CHECK_SIGNATURE(split, ncclCommSplit);
CHECK_SIGNATURE(finalize, ncclCommFinalize);
CHECK_SIGNATURE(destroy, ncclCommDestroy);
CHECK_SIGNATURE(abort, ncclCommAbort);
CHECK_SIGNATURE(async_error, ncclCommGetAsyncError);
CHECK_SIGNATURE(error_string, ncclGetErrorString);
CHECK_SIGNATURE(last_error, ncclGetLastError);
CHECK_SIGNATURE(group_start, ncclGroupStart);
CHECK_SIGNATURE(group_end, ncclGroupEnd);
CHECK_SIGNATURE(all_reduce, ncclAllReduce);
CHECK_SIGNATURE(reduce, ncclReduce);
CHECK_SIGNATURE(reduce_scatter, ncclReduceScatter);
CHECK_SIGNATURE(all_gather, ncclAllGather);
CHECK_SIGNATURE(broadcast, ncclBroadcast);
CHECK_SIGNATURE(send, ncclSend);
CHECK_SIGNATURE(receive, ncclRecv);

}  // namespace fmoe::comm::nccl
