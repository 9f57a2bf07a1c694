#!/bin/sh
# Builds the CPU library with AddressSanitizer and runs the Python tests under it: asan.sh [pytest args]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
torch=$("$python" -c 'import os, torch; print(os.path.dirname(torch.__file__))')
build=${FMOE_ASAN_BUILD:-$here/../native/build/sanitized-python}
cmake -S "$here/../native" -B "$build" -DFMOE_SANITIZE=ON -DCMAKE_BUILD_TYPE=Release \
  -DFMOE_TORCH_INCLUDE="$torch/include;$torch/include/torch/csrc/api/include" -DFMOE_TORCH_LIB="$torch/lib" >/dev/null
cmake --build "$build" --parallel 2
compiler=${CXX:-g++}
# libstdc++ beside libasan, or the sanitizer finds no __cxa_throw to wrap. Python itself leaks by design.
export LD_PRELOAD="$($compiler -print-file-name=libasan.so) $($compiler -print-file-name=libstdc++.so)"
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=0:halt_on_error=1
export FMOE_KERNELS_LIBRARY="$build/libfmoe_kernels.so"
# Compiled graphs say nothing about memory here and are slow under the sanitizer.
cd "$here" && exec "$python" -m pytest -q -p no:cacheprovider \
  -k 'not registration and not traced and not twenty' "$@"
