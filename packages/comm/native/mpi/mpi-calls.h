// The MPI library that the process has opened, and what stands around its calls.
//
// MPI runs at MPI_THREAD_SERIALIZED: one mutex stands around every call, and no call under it waits for another process, except
// where a communicator is made.
#pragma once

#include <mutex>
#include <string>

#include "mpi-table.h"

namespace fmoe::comm {

// Null until open_mpi().
extern const fmoe_mpi_table* mpi;

std::mutex& mpi_mutex();

// Throws a DistBackendError unless `error` is MPI's success.
void check_mpi(int error, const char* what);

// Opens the shim of the MPI family that started the process.
void open_mpi(const std::string& shim);

// After MPI has started in all processes of this machine.
void unlink_segments();

}  // namespace fmoe::comm
