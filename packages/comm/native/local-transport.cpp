// The group of one process: every operation is a copy, or nothing.
#include "transport.h"

namespace fmoe::comm {

namespace {

class Done : public Request {
 public:
  bool test() override { return true; }
};

class LocalTransport : public Transport {
 public:
  const char* name() const override { return "local"; }
  bool takes(const c10::Device&) const override { return true; }
  Tensor make_stage(const Tensor& like) const override { return like; }
  bool reduces(at::ScalarType, ReduceOp) const override { return true; }

  RequestPtr all_reduce(const Tensor&, ReduceOp) override { return done(); }
  RequestPtr reduce_scatter(const Tensor& input, const Tensor& output, const Counts&, ReduceOp) override {
    return copy(input, output);
  }
  RequestPtr all_gather(const Tensor& input, const Tensor& output, const Counts&) override { return copy(input, output); }
  RequestPtr broadcast(const Tensor&, int) override { return done(); }
  RequestPtr all_to_all(const Tensor& input, const Tensor& output, const Counts&, const Counts&) override {
    return copy(input, output);
  }
  RequestPtr send(const Tensor&, int, int) override { return done(); }
  RequestPtr receive(const Tensor&, int, int) override { return done(); }
  RequestPtr barrier() override { return done(); }

  std::unique_ptr<Transport> split(int color, int, const std::vector<int>&, const std::string&) override {
    return color < 0 ? nullptr : make_local_transport();
  }
  void abort() override {}

 private:
  static RequestPtr done() { return std::make_unique<Done>(); }
  static RequestPtr copy(const Tensor& input, const Tensor& output) {
    output.copy_(input);
    return done();
  }
};

}  // namespace

std::unique_ptr<Transport> make_local_transport() { return std::make_unique<LocalTransport>(); }

}  // namespace fmoe::comm
