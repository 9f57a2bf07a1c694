/* The raw figure: grouped ncclSend and ncclRecv on a stream, one process for each GPU. Reads the plan of bandwidth.ts from the file in
 * the first argument, "bytes iterations" lines where `bytes` is what a rank sends in all, its own part included; the second is how
 * often the plan is gone through, the third a folder, where rank 0 leaves the communicator's id and rank r, in rank-r.json,
 * milliseconds a call: [bytes, milliseconds] of each line and round. The launcher's variables say which rank this is. */
#include <cuda_runtime.h>
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define CUDA(call)                                                                               \
  do {                                                                                           \
    cudaError_t error = (call);                                                                  \
    if (error != cudaSuccess) fail(#call, cudaGetErrorString(error));                            \
  } while (0)
#define NCCL(call)                                                                               \
  do {                                                                                           \
    ncclResult_t error = (call);                                                                 \
    if (error != ncclSuccess) fail(#call, ncclGetErrorString(error));                            \
  } while (0)

static void fail(const char* what, const char* why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static int number(const char* variable) {
  const char* text = getenv(variable);
  if (text == NULL) fail(variable, "is not set");
  return atoi(text);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e3 + time.tv_nsec * 1e-6;
}

/* Rank 0's id, through a file that appears whole. */
static ncclUniqueId share_id(const char* folder, int rank) {
  ncclUniqueId id;
  char path[4096], whole[4096];
  FILE* file;
  snprintf(whole, sizeof whole, "%s/id", folder);
  snprintf(path, sizeof path, "%s/id.new", folder);
  if (rank == 0) {
    NCCL(ncclGetUniqueId(&id));
    file = fopen(path, "wb");
    if (file == NULL || fwrite(&id, sizeof id, 1, file) != 1) fail(path, "cannot be written");
    fclose(file);
    rename(path, whole);
    return id;
  }
  while ((file = fopen(whole, "rb")) == NULL) usleep(1000);
  if (fread(&id, sizeof id, 1, file) != 1) fail(whole, "cannot be read");
  fclose(file);
  return id;
}

int main(int argc, char** argv) {
  int rank = number("RANK"), size = number("WORLD_SIZE"), rounds, round, lines = 0, line, i, peer, iterations[64];
  long bytes[64], largest = 0;
  FILE *plan, *result;
  char path[4096], *from, *to;
  ncclComm_t comm;
  cudaStream_t stream;

  if (argc != 4) fail(argv[0], "expected a plan, rounds and a folder");
  plan = fopen(argv[1], "r");
  if (plan == NULL) fail(argv[1], "cannot be read");
  while (lines < 64 && fscanf(plan, "%ld %d", &bytes[lines], &iterations[lines]) == 2) {
    if (bytes[lines] > largest) largest = bytes[lines];
    ++lines;
  }
  rounds = atoi(argv[2]);
  CUDA(cudaSetDevice(number("LOCAL_RANK")));
  CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CUDA(cudaMalloc((void**)&from, largest));
  CUDA(cudaMalloc((void**)&to, largest));
  CUDA(cudaMemset(from, rank, largest));
  NCCL(ncclCommInitRank(&comm, size, share_id(argv[3], rank), rank));
  snprintf(path, sizeof path, "%s/rank-%d.json", argv[3], rank);
  result = fopen(path, "w");
  if (result == NULL) fail(path, "cannot be written");
  fprintf(result, "[");
  for (round = 0; round < rounds; ++round) {
    for (line = 0; line < lines; ++line) {
      const long part = bytes[line] / size;
      double begin = 0;
      for (i = -(iterations[line] / 10 + 2); i < iterations[line]; ++i) {
        if (i == 0) {
          NCCL(ncclAllReduce(from, to, 1, ncclInt8, ncclMax, comm, stream));
          CUDA(cudaStreamSynchronize(stream));
          begin = now();
        }
        NCCL(ncclGroupStart());
        for (peer = 0; peer < size; ++peer) {
          NCCL(ncclSend(from + peer * part, part, ncclUint8, peer, comm, stream));
          NCCL(ncclRecv(to + peer * part, part, ncclUint8, peer, comm, stream));
        }
        NCCL(ncclGroupEnd());
      }
      CUDA(cudaStreamSynchronize(stream));
      fprintf(result, "%s[%ld, %.6f]", round + line > 0 ? ", " : "", bytes[line], (now() - begin) / iterations[line]);
    }
  }
  fprintf(result, "]\n");
  if (fclose(result) != 0) fail(path, "cannot be written");
  NCCL(ncclCommDestroy(comm));
  return 0;
}
