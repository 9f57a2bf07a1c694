# libfmoe_kernels_cuda.so, beside libfmoe_kernels.so: only where libtorch has CUDA and there is a CUDA compiler of the same
# major version. Everything else builds the same without it.
#
# Looked at in this order: CUDACXX, CUDA_HOME, /usr/local/cuda, PATH, then FMOE_NVCC, which set-up gives when it has the
# compiler from PyPI.

function(find_cuda_compiler result)
  if(DEFINED ENV{CUDACXX})
    set(${result} "$ENV{CUDACXX}" PARENT_SCOPE)
    return()
  endif()
  find_program(FMOE_NVCC_FOUND nvcc HINTS "$ENV{CUDA_HOME}/bin" /usr/local/cuda/bin)
  if(FMOE_NVCC_FOUND)
    set(${result} "${FMOE_NVCC_FOUND}" PARENT_SCOPE)
  else()
    set(${result} "${FMOE_NVCC}" PARENT_SCOPE)
  endif()
endfunction()

# The major version of the CUDA runtime that libtorch asks for, empty where it has none.
function(torch_cuda_version result)
  set(version "")
  if(EXISTS "${FMOE_TORCH_LIB}/libc10_cuda.so")
    file(STRINGS "${FMOE_TORCH_LIB}/libc10_cuda.so" names REGEX "libcudart(-[0-9a-f]+)?\\.so\\.[0-9]+")
    if("${names}" MATCHES "libcudart[-0-9a-f]*\\.so\\.([0-9]+)")
      set(version "${CMAKE_MATCH_1}")
    endif()
  endif()
  set(${result} "${version}" PARENT_SCOPE)
endfunction()

function(compiler_version compiler result)
  execute_process(COMMAND "${compiler}" --version OUTPUT_VARIABLE text ERROR_QUIET RESULT_VARIABLE status)
  set(version "")
  if(status EQUAL 0 AND text MATCHES "release ([0-9]+)\\.")
    set(version "${CMAKE_MATCH_1}")
  endif()
  set(${result} "${version}" PARENT_SCOPE)
endfunction()

find_cuda_compiler(CUDA_COMPILER)
torch_cuda_version(WANTED_CUDA)
set(FMOE_CUDA OFF)
if(WANTED_CUDA STREQUAL "")
  message(STATUS "fmoe: CPU only: this libtorch has no CUDA")
elseif(NOT CUDA_COMPILER)
  message(STATUS "fmoe: CPU only: no CUDA compiler. Install the CUDA toolkit ${WANTED_CUDA}, or name nvcc in CUDACXX.")
else()
  compiler_version("${CUDA_COMPILER}" FOUND_CUDA)
  if(FOUND_CUDA STREQUAL WANTED_CUDA)
    set(FMOE_CUDA ON)
  else()
    message(STATUS "fmoe: CPU only: libtorch needs CUDA ${WANTED_CUDA}, but ${CUDA_COMPILER} is CUDA '${FOUND_CUDA}'")
  endif()
endif()

if(FMOE_CUDA)
  set(CMAKE_CUDA_COMPILER "${CUDA_COMPILER}")
  # Machine code for Ampere and Hopper, and PTX for what comes later: that of 80, which is there anyway. No kernel asks for
  # more, and each virtual architecture is another pass of the compiler.
  set(CMAKE_CUDA_ARCHITECTURES 80 90a-real)
  set(CMAKE_CUDA_STANDARD 17)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
  enable_language(CUDA)
  set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -DNDEBUG")
  message(STATUS "fmoe: CUDA kernels with ${CUDA_COMPILER}")

  add_library(fmoe_kernels_cuda MODULE
    checks.cpp
    cuda/errors.cu
    cuda/gate.cu
    cuda/route-plan.cu
    cuda/rows.cu
    cuda/groups.cu
    cuda/grouped-product.cu
    cuda/activation.cu
    cuda/routing.cpp
    cuda/topk-gate.cpp
    cuda/movement.cpp
    cuda/products.cpp
    cuda/grouped-linear.cpp
    cuda/moe-mlp.cpp)
  target_include_directories(fmoe_kernels_cuda PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_include_directories(fmoe_kernels_cuda SYSTEM PRIVATE
    "$<$<COMPILE_LANGUAGE:CXX>:${FMOE_TORCH_INCLUDE};${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES}>")
  target_compile_options(fmoe_kernels_cuda PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -fvisibility=hidden>
    $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-fvisibility=hidden>)
  set_target_properties(fmoe_kernels_cuda PROPERTIES LINKER_LANGUAGE CXX)
  target_link_options(fmoe_kernels_cuda PRIVATE -L${FMOE_TORCH_LIB} -Wl,--no-as-needed)
  # Not torch_cuda: aten operators are reached through the dispatcher, in torch_cpu.
  target_link_libraries(fmoe_kernels_cuda PRIVATE torch_cpu c10_cuda c10)
endif()
