// What carries the bytes of one group. MPI, NCCL and the group of one process each implement this and nothing else: checks,
// dtypes that a transport cannot add up, tensors on other devices, timeouts and autograd are the same for all (collectives.cpp).
//
// Shape letters: W members of the group.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <vector>

namespace fmoe::comm {

using at::Tensor;
using Counts = std::vector<int64_t>;  // rows for each member, [W]

enum class ReduceOp { sum, mean, product, min, max };

// An operation could not be begun in the time that the group gives it.
struct DeadlinePassed : std::exception {
  const char* what() const noexcept override { return "the deadline has passed"; }
};

// An operation under way. It holds what it needs besides the tensors, which its Work keeps.
class Request {
 public:
  virtual ~Request() = default;
  // Whether it is over. Throws c10::DistBackendError when it failed.
  virtual bool test() = 0;
  // For operations on a device's stream: work that the caller submits from now on waits for the result. True when that is
  // all there is to do, and the host need not wait.
  virtual bool join_stream() { return false; }
};

using RequestPtr = std::unique_ptr<Request>;

// Tensors are contiguous and on a device that the transport takes. Each call starts an operation and returns.
class Transport {
 public:
  virtual ~Transport() = default;

  virtual const char* name() const = 0;
  // Seconds that the beginning of an operation may take, for a transport that has to wait there.
  virtual void set_timeout(double) {}
  virtual bool takes(const c10::Device& device) const = 0;
  // A buffer for a tensor that it does not take, on a device that it does.
  virtual Tensor make_stage(const Tensor& like) const = 0;
  // Whether it can combine elements of that type itself; never asked for `mean` of integers.
  virtual bool reduces(at::ScalarType dtype, ReduceOp op) const = 0;

  virtual RequestPtr all_reduce(const Tensor& data, ReduceOp op) = 0;
  // input [sum(rows), …] to output [rows[rank], …]
  virtual RequestPtr reduce_scatter(const Tensor& input, const Tensor& output, const Counts& rows, ReduceOp op) = 0;
  // input [rows[rank], …] to output [sum(rows), …]
  virtual RequestPtr all_gather(const Tensor& input, const Tensor& output, const Counts& rows) = 0;
  virtual RequestPtr broadcast(const Tensor& data, int root) = 0;
  virtual RequestPtr all_to_all(
      const Tensor& input, const Tensor& output, const Counts& send_rows, const Counts& receive_rows) = 0;
  virtual RequestPtr send(const Tensor& data, int to, int tag) = 0;
  virtual RequestPtr receive(const Tensor& data, int from, int tag) = 0;
  virtual RequestPtr barrier() = 0;

  // A transport of the members of one color, ordered by key; called by all members at once. Empty for color < 0.
  // `members` are this process's new group as ranks of this one, in their order there; `name` is the same on all of them.
  virtual std::unique_ptr<Transport> split(
      int color, int key, const std::vector<int>& members, const std::string& name) = 0;
  // Ends the operations under way as well as it can; none may follow.
  virtual void abort() = 0;
};

std::unique_ptr<Transport> make_local_transport();

// Opens the shim of one MPI family (mpi/mpi-table.h), starts MPI and returns the transport of all processes. `rank` and
// `size` are set.
std::unique_ptr<Transport> start_mpi(const std::string& shim, int& rank, int& size);
// Ends MPI. Waits for the other processes to do the same.
void finish_mpi();
// Ends all processes of the run at once, when there is an MPI; else returns.
void abort_mpi(int code);
std::string mpi_version();

// Opens libnccl (a path, or a name for the system's loader) on the first call. The communicator is made at the first operation:
// the members meet in the store under `name`.
std::unique_ptr<Transport> make_nccl_transport(
    const std::string& library, int rank, int size, const std::string& name, double timeout);

}  // namespace fmoe::comm
