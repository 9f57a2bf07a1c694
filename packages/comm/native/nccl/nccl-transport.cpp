// NCCL: tensors of one GPU, on a stream of the group's own that waits for the caller's and that the caller's waits for.
// The communicator is made at the first operation.
#include <ATen/DeviceGuard.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <thread>

#include "capture-mode.h"
#include "nccl-communicator.h"
#include "transport.h"
#include "watch.h"

namespace fmoe::comm {

namespace {

using nccl::Communicator;
using Clock = std::chrono::steady_clock;

c10::impl::VirtualGuardImpl cuda() { return c10::impl::VirtualGuardImpl(c10::kCUDA); }

std::optional<nccl::Type> type_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kChar: return nccl::kInt8;
    case at::kByte:
    case at::kBool: return nccl::kUint8;
    case at::kInt: return nccl::kInt32;
    case at::ScalarType::UInt32: return nccl::kUint32;
    case at::kLong: return nccl::kInt64;
    case at::ScalarType::UInt64: return nccl::kUint64;
    case at::kHalf: return nccl::kFloat16;
    case at::kFloat: return nccl::kFloat32;
    case at::kDouble: return nccl::kFloat64;
    case at::kBFloat16: return nccl::kBfloat16;
    default: return std::nullopt;
  }
}

int op_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum: return nccl::kSum;
    case ReduceOp::mean: return nccl::kAvg;
    case ReduceOp::product: return nccl::kProd;
    case ReduceOp::min: return nccl::kMin;
    case ReduceOp::max: return nccl::kMax;
  }
  return nccl::kSum;
}

int64_t row_elements(const Tensor& tensor) {
  int64_t elements = 1;
  for (int64_t dim = 1; dim < tensor.dim(); ++dim) elements *= tensor.size(dim);
  return elements;
}

class NcclRequest : public Request {
 public:
  NcclRequest(std::shared_ptr<Communicator> communicator, c10::Event done)
      : communicator_(std::move(communicator)), done_(std::move(done)) {}

  bool test() override {
    communicator_->check("the operation failed");
    const RelaxedCapture relaxed;
    return done_.query();
  }

  bool join_stream() override {
    done_.block(cuda().getStream(c10::Device(c10::kCUDA, done_.device_index())));
    return true;
  }

 private:
  std::shared_ptr<Communicator> communicator_;
  c10::Event done_;
};

class NcclTransport : public Transport {
 public:
  NcclTransport(const nccl::Table& table, int rank, int size, std::string name, std::shared_ptr<Communicator> communicator)
      : table_(table), rank_(rank), size_(size), name_(std::move(name)), communicator_(std::move(communicator)) {}

  ~NcclTransport() override {
    if (communicator_->aborted() || !device_) return;
    // A peer may be gone, and then the stream does not end by itself.
    const auto deadline = Clock::now() + std::chrono::seconds(10);
    try {
      while (stream_ && !stream_->query()) {
        if (Clock::now() > deadline) throw DeadlinePassed{};
        std::this_thread::sleep_for(std::chrono::microseconds(100));
      }
      communicator_->close(10.0);
    } catch (const std::exception&) {
      communicator_->abort();
    }
  }

  const char* name() const override { return "nccl"; }
  void set_timeout(double seconds) override { communicator_->timeout = seconds; }
  bool takes(const c10::Device& device) const override { return device.is_cuda(); }
  Tensor make_stage(const Tensor& like) const override {
    const auto device = device_ ? *device_ : cuda().getDevice();
    return at::empty(like.sizes(), like.options().device(device));
  }
  bool reduces(at::ScalarType dtype, ReduceOp op) const override {
    return type_of(dtype).has_value() && (op != ReduceOp::mean || at::isFloatingType(dtype));
  }

  RequestPtr all_reduce(const Tensor& data, ReduceOp op) override {
    return launch("all-reduce", {data}, [&](nccl::Comm comm, nccl::Stream stream) {
      if (data.numel() == 0) return int{nccl::kSuccess};
      return table_.all_reduce(data.data_ptr(), data.data_ptr(), data.numel(), *type_of(data.scalar_type()), op_of(op), comm, stream);
    });
  }

  RequestPtr reduce_scatter(const Tensor& input, const Tensor& output, const Counts& rows, ReduceOp op) override {
    return launch("reduce-scatter", {input, output}, [&](nccl::Comm comm, nccl::Stream stream) {
      const int type = *type_of(input.scalar_type());
      const int64_t width = row_elements(input);
      if (input.numel() == 0) return int{nccl::kSuccess};
      if (even(rows)) {
        return table_.reduce_scatter(input.data_ptr(), output.data_ptr(), output.numel(), type, op_of(op), comm, stream);
      }
      return grouped([&] {
        const auto* part = static_cast<const char*>(input.data_ptr());
        int result = nccl::kSuccess;
        for (int root = 0; root < size_ && ok(result); ++root) {
          const int64_t count = rows[root] * width;
          if (count > 0) result = table_.reduce(part, output.data_ptr(), count, type, op_of(op), root, comm, stream);
          part += count * input.element_size();
        }
        return result;
      });
    });
  }

  RequestPtr all_gather(const Tensor& input, const Tensor& output, const Counts& rows) override {
    return launch("all-gather", {input, output}, [&](nccl::Comm comm, nccl::Stream stream) {
      const int64_t row_bytes = row_elements(output) * output.element_size();
      if (output.numel() == 0) return int{nccl::kSuccess};
      if (even(rows)) {
        return table_.all_gather(input.data_ptr(), output.data_ptr(), rows[0] * row_bytes, nccl::kUint8, comm, stream);
      }
      return grouped([&] {
        auto* part = static_cast<char*>(output.data_ptr());
        int result = nccl::kSuccess;
        for (int root = 0; root < size_ && ok(result); ++root) {
          const int64_t bytes = rows[root] * row_bytes;
          const void* source = root == rank_ ? input.data_ptr() : part;
          if (bytes > 0) result = table_.broadcast(source, part, bytes, nccl::kUint8, root, comm, stream);
          part += bytes;
        }
        return result;
      });
    });
  }

  RequestPtr broadcast(const Tensor& data, int root) override {
    return launch("broadcast", {data}, [&](nccl::Comm comm, nccl::Stream stream) {
      if (data.numel() == 0) return int{nccl::kSuccess};
      return table_.broadcast(
          data.data_ptr(), data.data_ptr(), data.numel() * data.element_size(), nccl::kUint8, root, comm, stream);
    });
  }

  RequestPtr all_to_all(
      const Tensor& input, const Tensor& output, const Counts& send_rows, const Counts& receive_rows) override {
    return launch("all-to-all", {input, output}, [&](nccl::Comm comm, nccl::Stream stream) {
      const int64_t row_bytes = row_elements(output) * output.element_size();
      return grouped([&] {
        const auto* source = static_cast<const char*>(input.data_ptr());
        auto* target = static_cast<char*>(output.data_ptr());
        int result = nccl::kSuccess;
        for (int peer = 0; peer < size_; ++peer) {
          const int64_t sent = send_rows[peer] * row_bytes, received = receive_rows[peer] * row_bytes;
          if (sent > 0 && ok(result)) result = table_.send(source, sent, nccl::kUint8, peer, comm, stream);
          if (received > 0 && ok(result)) result = table_.receive(target, received, nccl::kUint8, peer, comm, stream);
          source += sent;
          target += received;
        }
        return result;
      });
    });
  }

  RequestPtr send(const Tensor& data, int to, int) override {
    return launch("send", {data}, [&](nccl::Comm comm, nccl::Stream stream) {
      if (data.numel() == 0) return int{nccl::kSuccess};
      return table_.send(data.data_ptr(), data.numel() * data.element_size(), nccl::kUint8, to, comm, stream);
    });
  }

  RequestPtr receive(const Tensor& data, int from, int) override {
    return launch("receive", {data}, [&](nccl::Comm comm, nccl::Stream stream) {
      if (data.numel() == 0) return int{nccl::kSuccess};
      return table_.receive(data.data_ptr(), data.numel() * data.element_size(), nccl::kUint8, from, comm, stream);
    });
  }

  RequestPtr barrier() override {
    const auto device = device_ ? *device_ : cuda().getDevice();
    return all_reduce(at::zeros({1}, at::TensorOptions(at::kInt).device(device)), ReduceOp::sum);
  }

  std::unique_ptr<Transport> split(int color, int key, const std::vector<int>& members, const std::string& name) override {
    // The operation by which the members told their colors has made the communicator.
    const c10::DeviceGuard guard(*device_);
    auto made = communicator_->split(color, key);
    if (!made) return nullptr;
    const auto place = std::find(members.begin(), members.end(), rank_) - members.begin();
    auto result = std::make_unique<NcclTransport>(
        table_, static_cast<int>(place), static_cast<int>(members.size()), name, std::move(made));
    result->device_ = device_;
    return result;
  }

  void abort() override { communicator_->abort(); }

 private:
  static bool ok(int result) { return result == nccl::kSuccess || result == nccl::kInProgress; }

  bool even(const Counts& rows) const {
    return std::all_of(rows.begin(), rows.end(), [&](int64_t count) { return count == rows[0]; });
  }

  template <typename Body>
  int grouped(Body&& body) {
    const int started = table_.group_start();
    if (!ok(started)) return started;
    // What follows is a part of the group until its end, also when it fails.
    const int result = body();
    const int ended = table_.group_end();
    return ok(result) ? ended : result;
  }

  // Makes the communicator for the device of the first tensors: rank 0 leaves an id in the store.
  void connect(const c10::Device& device) {
    if (device_) {
      TORCH_CHECK_VALUE(*device_ == device, "the group '", name_, "' is on device ", device_->str(), ", not on ", device.str());
      return;
    }
    nccl::UniqueId id;
    const std::string key = "fmoe/nccl/" + name_;
    if (rank_ == 0) {
      if (const int result = table_.get_unique_id(&id)) {
        C10_THROW_ERROR(DistBackendError, std::string("NCCL: ncclGetUniqueId: ") + table_.error_string(result));
      }
      const auto* bytes = reinterpret_cast<const uint8_t*>(&id);
      store().set(key, std::vector<uint8_t>(bytes, bytes + sizeof id));
    } else {
      // Not `wait`, during which no other thread could tell the store what this process does.
      const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                               std::chrono::duration<double>(communicator_->timeout.load()));
      while (!store().check({key})) {
        if (Clock::now() > deadline) throw DeadlinePassed{};
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
      const auto bytes = store().get(key);
      std::memcpy(&id, bytes.data(), std::min(bytes.size(), sizeof id));
    }
    communicator_->init(size_, id, rank_, device);
    device_ = device;
  }

  // `body` submits to the stream, which waits for what the caller has submitted before.
  template <typename Body>
  RequestPtr launch(const char* what, const std::vector<Tensor>& tensors, Body&& body) {
    const auto device = tensors[0].device();
    const c10::DeviceGuard guard(device);
    connect(device);
    if (!stream_) stream_ = cuda().getStreamFromGlobalPool(device, /*isHighPriority=*/true);
    c10::Event ready(c10::kCUDA), done(c10::kCUDA);
    ready.record(cuda().getStream(device));
    ready.block(*stream_);
    communicator_->run(what, [&](nccl::Comm comm) { return body(comm, stream_->native_handle()); });
    done.record(*stream_);
    // The caching allocator must not hand the memory out again before the stream is done with it.
    for (const Tensor& tensor : tensors) tensor.record_stream(*stream_);
    return std::make_unique<NcclRequest>(communicator_, std::move(done));
  }

  const nccl::Table& table_;
  const int rank_;
  const int size_;
  const std::string name_;
  const std::shared_ptr<Communicator> communicator_;
  std::optional<c10::Device> device_;
  std::optional<c10::Stream> stream_;
};

}  // namespace

std::unique_ptr<Transport> make_nccl_transport(
    const std::string& library, int rank, int size, const std::string& name, double timeout) {
  const bool there = c10::impl::hasDeviceGuardImpl(c10::kCUDA) && cuda().deviceCount() > 0;
  if (!there) C10_THROW_ERROR(DistBackendError, "NCCL needs a CUDA device, and there is none");
  const auto& table = nccl::open(library.c_str());
  return std::make_unique<NcclTransport>(table, rank, size, name, std::make_shared<Communicator>(table, timeout));
}

}  // namespace fmoe::comm
