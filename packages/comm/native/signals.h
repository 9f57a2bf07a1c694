// SIGINT and SIGTERM while a thread waits in native code, where the JavaScript handlers cannot run.
#pragma once

namespace fmoe::comm {

// While one exists, a signal that the program handles itself is noticed here as well; the program's handler runs too. Signals
// that it does not handle end the process as ever.
class SignalWatch {
 public:
  SignalWatch();
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;
  // The signal that came since, or 0.
  int caught() const;

 private:
  int before_;
};

const char* signal_name(int signal);

}  // namespace fmoe::comm
