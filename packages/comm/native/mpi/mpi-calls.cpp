#include "mpi-calls.h"

#include <c10/util/Exception.h>
#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

namespace fmoe::comm {

const fmoe_mpi_table* mpi = nullptr;

namespace {

// OpenMPI and UCX patch the code of munmap, brk and others, to notice memory that a network card knows. In a process with other
// threads that ends, now and then, with a heap cut off while it is in use. Whoever needs it sets the variables.
void forbid_patching() {
  setenv("OMPI_MCA_memory", "^patcher", /*overwrite=*/0);
  setenv("UCX_MEM_EVENTS", "n", 0);
  setenv("UCX_MEM_MMAP_HOOK_MODE", "none", 0);
}

}  // namespace

std::mutex& mpi_mutex() {
  static auto* mutex = new std::mutex;
  return *mutex;
}

void check_mpi(int error, const char* what) {
  if (error == 0) return;
  char text[FMOE_MPI_TEXT];
  mpi->describe(error, text);
  C10_THROW_ERROR(DistBackendError, std::string("MPI: ") + what + ": " + text);
}

void open_mpi(const std::string& shim) {
  if (mpi != nullptr) return;
  forbid_patching();
  // Global: components of an OpenMPI look for symbols of the library that loads them.
  void* library = dlopen(shim.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) C10_THROW_ERROR(DistBackendError, std::string("cannot open the MPI library: ") + dlerror());
  const auto getter = reinterpret_cast<fmoe_mpi_getter>(dlsym(library, "fmoe_mpi"));
  const fmoe_mpi_table* table = getter ? getter() : nullptr;
  if (table == nullptr || table->version != FMOE_MPI_TABLE_VERSION) {
    C10_THROW_ERROR(DistBackendError, shim + " was built for another version of @fmoe/comm");
  }
  mpi = table;
}

// Once every process has opened them, MPICH's segments of shared memory need no name; with one they would outlive a run that is
// killed.
void unlink_segments() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const auto path = line.find("/dev/shm/mpich_");
    // Another process may have been faster.
    if (path != std::string::npos) unlink(line.c_str() + path);
  }
}

}  // namespace fmoe::comm
