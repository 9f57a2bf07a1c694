/* See mpi-table.h. Compiled with the mpicc of one MPI family. */
#include "mpi-table.h"

#include <mpi.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

/* MPICH has integers for handles, OpenMPI pointers. */
_Static_assert(sizeof(MPI_Comm) <= sizeof(fmoe_mpi_handle), "a communicator must fit into a handle");
_Static_assert(sizeof(MPI_Request) <= sizeof(fmoe_mpi_handle), "a request must fit into a handle");

static MPI_Comm comm_of(fmoe_mpi_handle handle) {
  MPI_Comm comm;
  memcpy(&comm, &handle, sizeof comm);
  return comm;
}

static fmoe_mpi_handle handle_of(MPI_Comm comm) {
  fmoe_mpi_handle handle = 0;
  memcpy(&handle, &comm, sizeof comm);
  return handle;
}

static int started(int error, MPI_Request request, fmoe_mpi_handle* handle) {
  *handle = 0;
  if (error == MPI_SUCCESS) memcpy(handle, &request, sizeof request);
  return error;
}

static MPI_Datatype type_of(int type) {
  switch (type) {
    case FMOE_MPI_INT8: return MPI_INT8_T;
    case FMOE_MPI_UINT8: return MPI_UINT8_T;
    case FMOE_MPI_INT16: return MPI_INT16_T;
    case FMOE_MPI_UINT16: return MPI_UINT16_T;
    case FMOE_MPI_INT32: return MPI_INT32_T;
    case FMOE_MPI_UINT32: return MPI_UINT32_T;
    case FMOE_MPI_INT64: return MPI_INT64_T;
    case FMOE_MPI_UINT64: return MPI_UINT64_T;
    case FMOE_MPI_FLOAT: return MPI_FLOAT;
    case FMOE_MPI_DOUBLE: return MPI_DOUBLE;
    case FMOE_MPI_COMPLEX_FLOAT: return MPI_C_FLOAT_COMPLEX;
    case FMOE_MPI_COMPLEX_DOUBLE: return MPI_C_DOUBLE_COMPLEX;
    default: return MPI_DATATYPE_NULL;
  }
}

static MPI_Op op_of(int op) {
  switch (op) {
    case FMOE_MPI_SUM: return MPI_SUM;
    case FMOE_MPI_PRODUCT: return MPI_PROD;
    case FMOE_MPI_MIN: return MPI_MIN;
    case FMOE_MPI_MAX: return MPI_MAX;
    default: return MPI_OP_NULL;
  }
}

/* Rows of the same few widths come again and again, so their types are kept. Calls come one at a time. */
#define KEPT_TYPES 64
static struct { int64_t unit; MPI_Datatype type; } kept[KEPT_TYPES];
static int kept_count = 0;

/* A type of `unit` bytes. *temporary says that the caller must free it, which is allowed before the request is done. */
static int row_type(int64_t unit, MPI_Datatype* type, int* temporary) {
  int error, i;
  *temporary = 0;
  if (unit == 1) { *type = MPI_BYTE; return MPI_SUCCESS; }
  for (i = 0; i < kept_count; ++i) {
    if (kept[i].unit == unit) { *type = kept[i].type; return MPI_SUCCESS; }
  }
  if (unit > INT32_MAX) return MPI_ERR_COUNT;
  error = MPI_Type_contiguous((int)unit, MPI_BYTE, type);
  if (error == MPI_SUCCESS) error = MPI_Type_commit(type);
  if (error != MPI_SUCCESS) return error;
  if (kept_count < KEPT_TYPES) {
    kept[kept_count].unit = unit;
    kept[kept_count++].type = *type;
  } else {
    *temporary = 1;
  }
  return MPI_SUCCESS;
}

static int init(void) {
  int done = 0, provided = 0, error = MPI_Initialized(&done);
  if (error != MPI_SUCCESS) return error;
  if (done) {
    error = MPI_Query_thread(&provided);
  } else {
    error = MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided);
  }
  if (error == MPI_SUCCESS && provided < MPI_THREAD_SERIALIZED) return MPI_ERR_UNSUPPORTED_OPERATION;
  return error;
}

static int finalize(void) {
  int done = 0;
  MPI_Finalized(&done);
  return done ? MPI_SUCCESS : MPI_Finalize();
}

static int abort_all(int code) { return MPI_Abort(MPI_COMM_WORLD, code); }

static void describe(int error, char text[FMOE_MPI_TEXT]) {
  char buffer[MPI_MAX_ERROR_STRING];
  int length = 0;
  if (MPI_Error_string(error, buffer, &length) != MPI_SUCCESS) length = snprintf(buffer, sizeof buffer, "error %d", error);
  buffer[length < MPI_MAX_ERROR_STRING ? length : MPI_MAX_ERROR_STRING - 1] = 0;
  snprintf(text, FMOE_MPI_TEXT, "%s", buffer);
}

static void library_version(char text[FMOE_MPI_TEXT]) {
  static char buffer[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(buffer, &length);
  snprintf(text, FMOE_MPI_TEXT, "%.*s", FMOE_MPI_TEXT - 1, buffer);
}

/* A communicator of our own, whose errors come back instead of ending the process. */
static int world(fmoe_mpi_handle* result) {
  MPI_Comm comm;
  int error = MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  if (error == MPI_SUCCESS) error = MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
  if (error == MPI_SUCCESS) *result = handle_of(comm);
  return error;
}

static int rank_and_size(fmoe_mpi_handle comm, int* rank, int* size) {
  int error = MPI_Comm_rank(comm_of(comm), rank);
  return error == MPI_SUCCESS ? MPI_Comm_size(comm_of(comm), size) : error;
}

static int split(fmoe_mpi_handle comm, int color, int key, fmoe_mpi_handle* result) {
  MPI_Comm made = MPI_COMM_NULL;
  int error = MPI_Comm_split(comm_of(comm), color < 0 ? MPI_UNDEFINED : color, key, &made);
  if (error == MPI_SUCCESS && made != MPI_COMM_NULL) {
    error = MPI_Comm_set_errhandler(made, MPI_ERRORS_RETURN);
    *result = handle_of(made);
  }
  return error;
}

static int release(fmoe_mpi_handle handle) {
  MPI_Comm comm = comm_of(handle);
  int done = 0;
  MPI_Finalized(&done);
  return done ? MPI_SUCCESS : MPI_Comm_free(&comm);
}

static int all_reduce(fmoe_mpi_handle comm, void* data, int count, int type, int op, fmoe_mpi_handle* handle) {
  MPI_Request request;
  int error = MPI_Iallreduce(MPI_IN_PLACE, data, count, type_of(type), op_of(op), comm_of(comm), &request);
  return started(error, request, handle);
}

static int reduce(fmoe_mpi_handle comm, const void* send, void* receive, int count, int type, int op, int root,
                  fmoe_mpi_handle* handle) {
  MPI_Request request;
  int error = MPI_Ireduce(send, receive, count, type_of(type), op_of(op), root, comm_of(comm), &request);
  return started(error, request, handle);
}

static int reduce_scatter(fmoe_mpi_handle comm, const void* send, void* receive, const int* counts, int type, int op,
                          fmoe_mpi_handle* handle) {
  MPI_Request request;
  int error = MPI_Ireduce_scatter(send, receive, counts, type_of(type), op_of(op), comm_of(comm), &request);
  return started(error, request, handle);
}

static int all_gather(fmoe_mpi_handle comm, const void* send, int send_count, void* receive, const int* counts,
                      const int* offsets, int64_t unit, fmoe_mpi_handle* handle) {
  MPI_Request request;
  MPI_Datatype rows;
  int temporary, error = row_type(unit, &rows, &temporary);
  if (error != MPI_SUCCESS) return error;
  error = MPI_Iallgatherv(send, send_count, rows, receive, counts, offsets, rows, comm_of(comm), &request);
  if (temporary) MPI_Type_free(&rows);
  return started(error, request, handle);
}

static int broadcast(fmoe_mpi_handle comm, void* data, int bytes, int root, fmoe_mpi_handle* handle) {
  MPI_Request request;
  int error = MPI_Ibcast(data, bytes, MPI_BYTE, root, comm_of(comm), &request);
  return started(error, request, handle);
}

static int send(fmoe_mpi_handle comm, const void* data, int bytes, int to, int tag, fmoe_mpi_handle* handle) {
  MPI_Request request;
  int error = MPI_Isend(data, bytes, MPI_BYTE, to, tag, comm_of(comm), &request);
  return started(error, request, handle);
}

static int receive(fmoe_mpi_handle comm, void* data, int bytes, int from, int tag, fmoe_mpi_handle* handle) {
  MPI_Request request;
  int error = MPI_Irecv(data, bytes, MPI_BYTE, from, tag, comm_of(comm), &request);
  return started(error, request, handle);
}

static int barrier(fmoe_mpi_handle comm, fmoe_mpi_handle* handle) {
  MPI_Request request;
  int error = MPI_Ibarrier(comm_of(comm), &request);
  return started(error, request, handle);
}

static int test(fmoe_mpi_handle* handle, int* done, int* bytes) {
  MPI_Request request;
  MPI_Status status;
  int error;
  memcpy(&request, handle, sizeof request);
  *bytes = 0;
  error = MPI_Test(&request, done, &status);
  memcpy(handle, &request, sizeof request);
  if (error == MPI_SUCCESS && *done) MPI_Get_count(&status, MPI_BYTE, bytes);
  /* A failed operation is over, whatever `done` says. */
  return error;
}

EXPORT const struct fmoe_mpi_table* fmoe_mpi(void) {
  static const struct fmoe_mpi_table table = {
      FMOE_MPI_TABLE_VERSION, init,  finalize,   abort_all, describe, library_version, world,   rank_and_size,
      split,                  release, all_reduce, reduce,    reduce_scatter, all_gather, broadcast, send,
      receive,                barrier, test};
  return &table;
}
