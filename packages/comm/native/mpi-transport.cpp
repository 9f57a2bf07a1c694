// MPI, through the table of C functions of the family that started the process (mpi/mpi-table.h). Host memory only.
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>

#include "mpi/mpi-calls.h"
#include "mpi/mpi-request.h"
#include "transport.h"

namespace fmoe::comm {

namespace {

// Counts of MPI are C ints. Longer buffers go in pieces; tests make the pieces small.
int64_t piece_limit() {
  static const int64_t limit = [] {
    const char* text = std::getenv("FMOE_COMM_PIECE_BYTES");
    const long long value = text ? std::atoll(text) : 0;
    return value > 0 ? static_cast<int64_t>(value) : int64_t{1} << 30;
  }();
  return limit;
}

int type_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kChar: return FMOE_MPI_INT8;
    case at::kByte:
    case at::kBool: return FMOE_MPI_UINT8;
    case at::kShort: return FMOE_MPI_INT16;
    case at::ScalarType::UInt16: return FMOE_MPI_UINT16;
    case at::kInt: return FMOE_MPI_INT32;
    case at::ScalarType::UInt32: return FMOE_MPI_UINT32;
    case at::kLong: return FMOE_MPI_INT64;
    case at::ScalarType::UInt64: return FMOE_MPI_UINT64;
    case at::kFloat: return FMOE_MPI_FLOAT;
    case at::kDouble: return FMOE_MPI_DOUBLE;
    case at::kComplexFloat: return FMOE_MPI_COMPLEX_FLOAT;
    case at::kComplexDouble: return FMOE_MPI_COMPLEX_DOUBLE;
    default: return -1;
  }
}

int op_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::product: return FMOE_MPI_PRODUCT;
    case ReduceOp::min: return FMOE_MPI_MIN;
    case ReduceOp::max: return FMOE_MPI_MAX;
    default: return FMOE_MPI_SUM;
  }
}

int64_t row_bytes(const Tensor& tensor) {
  int64_t bytes = tensor.element_size();
  for (int64_t dim = 1; dim < tensor.dim(); ++dim) bytes *= tensor.size(dim);
  return bytes;
}

class MpiTransport : public Transport {
 public:
  MpiTransport(fmoe_mpi_handle comm, int rank, int size) : comm_(comm), rank_(rank), size_(size) {}

  ~MpiTransport() override {
    // MPI_Comm_free is collective in name only: it marks the communicator. One that failed is left alone.
    if (aborted_) return;
    std::lock_guard<std::mutex> lock(mpi_mutex());
    mpi->release(comm_);
  }

  const char* name() const override { return "mpi"; }
  bool takes(const c10::Device& device) const override { return device.is_cpu(); }
  Tensor make_stage(const Tensor& like) const override {
    // Pinned, so that copies to and from a GPU go at full speed.
    return at::empty(like.sizes(), like.options().device(c10::kCPU).pinned_memory(true));
  }
  bool reduces(at::ScalarType dtype, ReduceOp op) const override {
    const bool ordered = op == ReduceOp::min || op == ReduceOp::max;
    return type_of(dtype) >= 0 && op != ReduceOp::mean && !(ordered && at::isComplexType(dtype));
  }

  RequestPtr all_reduce(const Tensor& data, ReduceOp op) override {
    auto request = std::make_unique<MpiRequest>();
    begin(*request, signature(kAllReduce, &data, static_cast<int64_t>(op), data.numel()), [this, data, op, to = request.get()] {
      pieces(data.numel(), data.element_size(), [&](int64_t first, int count) {
        check_mpi(mpi->all_reduce(comm_, address_of(data, first), count, type_of(data.scalar_type()), op_of(op), to->add()),
              "all-reduce");
      });
    });
    return request;
  }

  RequestPtr reduce_scatter(const Tensor& input, const Tensor& output, const Counts& rows, ReduceOp op) override {
    auto request = std::make_unique<MpiRequest>();
    auto* to = request.get();
    const int type = type_of(input.scalar_type());
    const int64_t width = row_bytes(input) / input.element_size();
    const auto own = signature(kReduceScatter, &input, static_cast<int64_t>(op), width, &rows);
    if (input.numel() * input.element_size() <= piece_limit()) {
      Counts elements;
      for (const int64_t count : rows) elements.push_back(count * width);
      const int* counts = request->keep(elements);
      begin(*request, own, [=] {
        check_mpi(mpi->reduce_scatter(comm_, MpiRequest::address(input), MpiRequest::address(output), counts, type, op_of(op), to->add()),
              "reduce-scatter");
      });
      return request;
    }
    // Too long for one call: each member's part is a reduction of its own.
    begin(*request, own, [=] {
      int64_t begin = 0;
      for (int root = 0; root < size_; ++root) {
        const int64_t elements = rows[root] * width;
        pieces(elements, input.element_size(), [&](int64_t first, int count) {
          void* target = root == rank_ ? address_of(output, first) : nullptr;
          check_mpi(mpi->reduce(comm_, address_of(input, begin + first), target, count, type, op_of(op), root, to->add()), "reduce");
        });
        begin += elements;
      }
    });
    return request;
  }

  RequestPtr all_gather(const Tensor& input, const Tensor& output, const Counts& rows) override {
    auto request = std::make_unique<MpiRequest>();
    const int* counts = request->keep(rows);
    const int* offsets = request->keep_offsets(rows);
    const int64_t width = row_bytes(input) / input.element_size();
    begin(*request, signature(kAllGather, &input, 0, width, &rows), [=, to = request.get()] {
      check_mpi(mpi->all_gather(comm_, MpiRequest::address(input), counts[rank_], MpiRequest::address(output), counts, offsets,
                            row_bytes(input), to->add()),
            "all-gather");
    });
    return request;
  }

  RequestPtr broadcast(const Tensor& data, int root) override {
    auto request = std::make_unique<MpiRequest>();
    begin(*request, signature(kBroadcast, &data, root, data.numel()), [=, to = request.get()] {
      bytes(data, [&](char* start, int count) {
        check_mpi(mpi->broadcast(comm_, start, count, root, to->add()), "broadcast");
      });
    });
    return request;
  }

  RequestPtr all_to_all(
      const Tensor& input, const Tensor& output, const Counts& send_rows, const Counts& receive_rows) override {
    // Messages of our own and not MPI_Ialltoallv, so that sizes are checked on arrival (MPICH's does not) and may have any length.
    // Each exchange has a tag of its own, or what one rank sent too much would be taken for a part of the next.
    auto request = std::make_unique<MpiRequest>();
    const int tag = kExchangeTags + static_cast<int>(exchanges_++ % (kExchangeTags - 1));
    const int64_t width = row_bytes(output);
    const auto sources = byte_offsets(send_rows, width), targets = byte_offsets(receive_rows, width);
    const auto* source = static_cast<const char*>(input.data_ptr());
    auto* target = static_cast<char*>(output.data_ptr());
    {
      std::lock_guard<std::mutex> lock(mpi_mutex());
      for (int step = 1; step < size_; ++step) {
        const int from = (rank_ + size_ - step) % size_;
        pieces(receive_rows[from] * width, 1, [&](int64_t first, int count) {
          check_mpi(mpi->receive(comm_, target + targets[from] + first, count, from, tag, request->add(count)), "all-to-all");
        });
      }
      for (int step = 1; step < size_; ++step) {
        const int to = (rank_ + step) % size_;
        pieces(send_rows[to] * width, 1, [&](int64_t first, int count) {
          check_mpi(mpi->send(comm_, source + sources[to] + first, count, to, tag, request->add()), "all-to-all");
        });
      }
    }
    if (send_rows[rank_] * width > 0) std::memcpy(target + targets[rank_], source + sources[rank_], send_rows[rank_] * width);
    return request;
  }

  RequestPtr send(const Tensor& data, int to, int tag) override {
    auto request = std::make_unique<MpiRequest>();
    std::lock_guard<std::mutex> lock(mpi_mutex());
    bytes(data, [&](char* start, int count) { check_mpi(mpi->send(comm_, start, count, to, tag, request->add()), "send"); });
    return request;
  }

  RequestPtr receive(const Tensor& data, int from, int tag) override {
    auto request = std::make_unique<MpiRequest>();
    std::lock_guard<std::mutex> lock(mpi_mutex());
    bytes(data, [&](char* start, int count) {
      check_mpi(mpi->receive(comm_, start, count, from, tag, request->add(count)), "receive");
    });
    return request;
  }

  RequestPtr barrier() override {
    auto request = std::make_unique<MpiRequest>();
    begin(*request, signature(kBarrier, nullptr, 0, 0), [this, to = request.get()] {
      check_mpi(mpi->barrier(comm_, to->add()), "barrier");
    });
    return request;
  }

  std::unique_ptr<Transport> split(int color, int key, const std::vector<int>& members, const std::string&) override {
    fmoe_mpi_handle made = 0;
    std::lock_guard<std::mutex> lock(mpi_mutex());
    check_mpi(mpi->split(comm_, color, key, &made), "split");
    if (color < 0) return nullptr;
    const auto place = std::find(members.begin(), members.end(), rank_) - members.begin();
    return std::make_unique<MpiTransport>(made, static_cast<int>(place), static_cast<int>(members.size()));
  }

  void abort() override { aborted_ = true; }

 private:
  static void* address_of(const Tensor& tensor, int64_t element) {
    return static_cast<char*>(tensor.data_ptr()) + element * tensor.element_size();
  }

  // Calls body(first element, count) for pieces that MPI can count; once for nothing.
  template <typename Body>
  static void pieces(int64_t elements, int64_t element_size, Body&& body) {
    const int64_t most = std::max<int64_t>(1, piece_limit() / element_size);
    for (int64_t first = 0; first < elements; first += most) body(first, static_cast<int>(std::min(most, elements - first)));
  }

  template <typename Body>
  static void bytes(const Tensor& data, Body&& body) {
    auto* start = static_cast<char*>(MpiRequest::address(data));
    const int64_t total = data.numel() * data.element_size();
    if (total == 0) return body(start, 0);
    pieces(total, 1, [&](int64_t first, int count) { body(start + first, count); });
  }

  // MPI promises tags up to 32767: the lower half is the program's, the upper half is for exchanges, and the last for signatures.
  static constexpr int kExchangeTags = 16384;
  static constexpr int kSignatureTag = 32767;

  static std::vector<int64_t> byte_offsets(const Counts& rows, int64_t width) {
    std::vector<int64_t> offsets(rows.size(), 0);
    for (size_t i = 1; i < rows.size(); ++i) offsets[i] = offsets[i - 1] + rows[i - 1] * width;
    return offsets;
  }

  Signature signature(Kind kind, const Tensor* tensor, int64_t detail, int64_t elements, const Counts* rows = nullptr) {
    const int64_t dtype = tensor == nullptr ? -1 : static_cast<int64_t>(tensor->scalar_type());
    return {++signatures_, kind, dtype, detail, elements, rows == nullptr ? 0 : hash_of(*rows)};
  }

  // Begins a collective operation, at once or when other ranks have said that they do the same.
  void begin(MpiRequest& request, const Signature& own, std::function<void()> start) {
    std::lock_guard<std::mutex> lock(mpi_mutex());
    if (size_ == 1) return start();
    auto owned = std::make_unique<MpiRequest::Comparison>(MpiRequest::Comparison{own, {}, {}});
    auto* comparison = owned.get();
    request.begin_later(queue_, std::move(owned), std::move(start));
    for (int step = 1; step < size_; step *= 2) comparison->ranks.push_back((rank_ + size_ - step) % size_);
    comparison->others.resize(comparison->ranks.size());
    constexpr int bytes = sizeof(Signature);
    for (size_t i = 0; i < comparison->ranks.size(); ++i) {
      const int before = comparison->ranks[i], after = (2 * rank_ + size_ - before) % size_;
      check_mpi(mpi->send(comm_, &comparison->own, bytes, after, kSignatureTag, request.add()), kKinds[own.kind]);
      check_mpi(mpi->receive(comm_, &comparison->others[i], bytes, before, kSignatureTag, request.add(bytes)), kKinds[own.kind]);
    }
  }

  fmoe_mpi_handle comm_;
  int rank_;
  int size_;
  int64_t exchanges_ = 0;
  int64_t signatures_ = 0;
  const std::shared_ptr<CollectiveQueue> queue_ = std::make_shared<CollectiveQueue>();
  bool aborted_ = false;
};

}  // namespace

std::unique_ptr<Transport> start_mpi(const std::string& shim, int& rank, int& size) {
  open_mpi(shim);
  std::lock_guard<std::mutex> lock(mpi_mutex());
  check_mpi(mpi->init(), "MPI_Init_thread");
  fmoe_mpi_handle comm = 0;
  check_mpi(mpi->world(&comm), "MPI_Comm_dup");
  check_mpi(mpi->rank_and_size(comm, &rank, &size), "MPI_Comm_rank");
  // The duplication of the world has waited for all processes.
  unlink_segments();
  return std::make_unique<MpiTransport>(comm, rank, size);
}

void finish_mpi() {
  if (mpi == nullptr) return;
  std::lock_guard<std::mutex> lock(mpi_mutex());
  check_mpi(mpi->finalize(), "MPI_Finalize");
}

void abort_mpi(int code) {
  // Without the mutex: a thread may be stuck in a call.
  if (mpi != nullptr) mpi->abort(code);
}

std::string mpi_version() {
  if (mpi == nullptr) return "";
  char text[FMOE_MPI_TEXT];
  mpi->library_version(text);
  return text;
}

}  // namespace fmoe::comm
