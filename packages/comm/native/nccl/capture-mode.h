// While any thread captures a CUDA graph, CUDA forbids the others to look at events, and gives the capture up if they do, unless
// they declare to know better. Looking at an operation that was begun before does no harm.
#pragma once

namespace fmoe::comm {

class RelaxedCapture {
 public:
  RelaxedCapture();
  ~RelaxedCapture();
  RelaxedCapture(const RelaxedCapture&) = delete;

 private:
  int mode_ = 2;  // cudaStreamCaptureModeRelaxed
};

}  // namespace fmoe::comm
