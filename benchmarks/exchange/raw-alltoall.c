/* The raw figures: MPI_Alltoallv on bytes, as in the OSU micro-benchmarks. Reads "bytes iterations" lines from the file in its
 * argument, where `bytes` is what each rank sends in all; rank 0 prints the mean time of one call, in microseconds, for each:
 * into memory that is there, and into memory that is allocated before the call, aligned as libtorch does it, and freed after it. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int size, *counts, *offsets;

/* Microseconds a call; `to` NULL for fresh memory each time. */
static double measure(const char* from, char* to, long bytes, int iterations) {
  double begin = 0, end;
  int i;
  for (i = -iterations; i < iterations; ++i) {
    void* result = to;
    if (i == 0) {
      MPI_Barrier(MPI_COMM_WORLD);
      begin = MPI_Wtime();
    }
    if (to == NULL && posix_memalign(&result, 64, bytes) != 0) MPI_Abort(MPI_COMM_WORLD, 3);
    MPI_Alltoallv(from, counts, offsets, MPI_BYTE, result, counts, offsets, MPI_BYTE, MPI_COMM_WORLD);
    if (to == NULL) free(result);
  }
  end = MPI_Wtime();
  MPI_Barrier(MPI_COMM_WORLD);
  return (end - begin) / iterations * 1e6;
}

int main(int argc, char** argv) {
  int rank, i, iterations;
  long bytes;
  FILE* plan;

  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  plan = argc > 1 ? fopen(argv[1], "r") : NULL;
  if (plan == NULL) MPI_Abort(MPI_COMM_WORLD, 2);
  counts = malloc(size * sizeof *counts);
  offsets = malloc(size * sizeof *offsets);

  while (fscanf(plan, "%ld %d", &bytes, &iterations) == 2) {
    double reused, fresh;
    void *from, *to;
    if (posix_memalign(&from, 64, bytes) != 0 || posix_memalign(&to, 64, bytes) != 0) MPI_Abort(MPI_COMM_WORLD, 3);
    memset(from, rank, bytes);
    memset(to, 0, bytes);
    for (i = 0; i < size; ++i) {
      counts[i] = (int)(bytes / size);
      offsets[i] = i * counts[i];
    }
    reused = measure(from, to, bytes, iterations);
    fresh = measure(from, NULL, bytes, iterations);
    if (rank == 0) printf("%ld %.3f %.3f\n", bytes, reused, fresh);
    free(from);
    free(to);
  }
  MPI_Finalize();
  return 0;
}
