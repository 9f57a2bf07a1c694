/*
 * The few calls of MPI that the transport needs, as a table of plain C functions. One file, mpi-shim.c, is compiled once for
 * each MPI family into a library of its own; the transport opens the one that belongs to the mpirun that started the process,
 * and so knows no mpi.h.
 *
 * Every function returns 0 or an error code for `describe`. A `request` is done when `test` says so; until then the buffers
 * and the arrays of counts that were passed must stay. Counts and offsets of an all-gather are in units of `unit` bytes.
 */
#ifndef FMOE_MPI_TABLE_H
#define FMOE_MPI_TABLE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FMOE_MPI_TABLE_VERSION 1
#define FMOE_MPI_TEXT 1024

/* A communicator or a request, in the bits of whatever type the MPI has for it. */
typedef uint64_t fmoe_mpi_handle;

enum fmoe_mpi_type {
  FMOE_MPI_INT8,
  FMOE_MPI_UINT8,
  FMOE_MPI_INT16,
  FMOE_MPI_UINT16,
  FMOE_MPI_INT32,
  FMOE_MPI_UINT32,
  FMOE_MPI_INT64,
  FMOE_MPI_UINT64,
  FMOE_MPI_FLOAT,
  FMOE_MPI_DOUBLE,
  FMOE_MPI_COMPLEX_FLOAT,
  FMOE_MPI_COMPLEX_DOUBLE
};

enum fmoe_mpi_op { FMOE_MPI_SUM, FMOE_MPI_PRODUCT, FMOE_MPI_MIN, FMOE_MPI_MAX };

struct fmoe_mpi_table {
  int version;
  /* Calls may come from any thread, one at a time. */
  int (*init)(void);
  int (*finalize)(void);
  int (*abort)(int code);
  void (*describe)(int error, char text[FMOE_MPI_TEXT]);
  void (*library_version)(char text[FMOE_MPI_TEXT]);

  int (*world)(fmoe_mpi_handle* comm);
  int (*rank_and_size)(fmoe_mpi_handle comm, int* rank, int* size);
  /* color < 0: this process joins no group, and *result is left alone. */
  int (*split)(fmoe_mpi_handle comm, int color, int key, fmoe_mpi_handle* result);
  int (*release)(fmoe_mpi_handle comm);

  int (*all_reduce)(fmoe_mpi_handle comm, void* data, int count, int type, int op, fmoe_mpi_handle* request);
  int (*reduce)(fmoe_mpi_handle comm, const void* send, void* receive, int count, int type, int op, int root,
                fmoe_mpi_handle* request);
  int (*reduce_scatter)(fmoe_mpi_handle comm, const void* send, void* receive, const int* counts, int type, int op,
                        fmoe_mpi_handle* request);
  int (*all_gather)(fmoe_mpi_handle comm, const void* send, int send_count, void* receive, const int* counts,
                    const int* offsets, int64_t unit, fmoe_mpi_handle* request);
  int (*broadcast)(fmoe_mpi_handle comm, void* data, int bytes, int root, fmoe_mpi_handle* request);
  int (*send)(fmoe_mpi_handle comm, const void* data, int bytes, int to, int tag, fmoe_mpi_handle* request);
  int (*receive)(fmoe_mpi_handle comm, void* data, int bytes, int from, int tag, fmoe_mpi_handle* request);
  int (*barrier)(fmoe_mpi_handle comm, fmoe_mpi_handle* request);
  /* *bytes is what arrived, once a `receive` is done. */
  int (*test)(fmoe_mpi_handle* request, int* done, int* bytes);
};

/* What a shim exports under the name "fmoe_mpi". */
typedef const struct fmoe_mpi_table* (*fmoe_mpi_getter)(void);

#ifdef __cplusplus
}
#endif

#endif
