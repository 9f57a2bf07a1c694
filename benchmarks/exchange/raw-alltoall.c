/* The raw figure: MPI_Alltoallv on bytes, as in the OSU micro-benchmarks. Reads "bytes iterations" lines from the file in its
 * argument, where `bytes` is what each rank sends in all; rank 0 prints the mean time of one call, in microseconds, for each. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char** argv) {
  int rank, size, i, iterations;
  long bytes, largest = 0;
  FILE* plan;
  char *from, *to;
  int *counts, *offsets;

  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  plan = argc > 1 ? fopen(argv[1], "r") : NULL;
  if (plan == NULL) MPI_Abort(MPI_COMM_WORLD, 2);
  while (fscanf(plan, "%ld %d", &bytes, &iterations) == 2) largest = bytes > largest ? bytes : largest;
  rewind(plan);
  from = malloc(largest);
  to = malloc(largest);
  counts = malloc(size * sizeof *counts);
  offsets = malloc(size * sizeof *offsets);
  memset(from, rank, largest);
  memset(to, 0, largest);

  while (fscanf(plan, "%ld %d", &bytes, &iterations) == 2) {
    double begin = 0;
    for (i = 0; i < size; ++i) {
      counts[i] = (int)(bytes / size);
      offsets[i] = i * counts[i];
    }
    for (i = -iterations; i < iterations; ++i) {
      if (i == 0) {
        MPI_Barrier(MPI_COMM_WORLD);
        begin = MPI_Wtime();
      }
      MPI_Alltoallv(from, counts, offsets, MPI_BYTE, to, counts, offsets, MPI_BYTE, MPI_COMM_WORLD);
    }
    if (rank == 0) printf("%ld %.3f\n", bytes, (MPI_Wtime() - begin) / iterations * 1e6);
    MPI_Barrier(MPI_COMM_WORLD);
  }
  MPI_Finalize();
  return 0;
}
