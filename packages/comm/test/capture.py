"""Captures a layer in a CUDA graph while an operation over NCCL is under way, which a thread of ours looks at all the time.

    python3 capture.py <libfmoe_kernels.so> <libfmoe_kernels_cuda.so> <libfmoe_comm.so> <libnccl>

CUDA ends a capture when another thread does what it forbids meanwhile. Prints "captured" when all is well.
"""

import os
import sys

import torch

*libraries, nccl = sys.argv[1:]
for library in libraries:
    torch.ops.load_library(library)
fmoe, comm = torch.ops.fmoe, torch.ops.fmoe_comm

torch.manual_seed(0)
tokens, width, hidden, experts = 300, 64, 96, 8
options = {"device": "cuda", "requires_grad": True}
x = torch.randn(tokens, width, **options)
score = torch.rand(tokens, 2, **options)
up = torch.randn(experts, hidden, width, **options)
down = torch.randn(experts, width, hidden, **options)
top_idx = torch.randint(0, experts, (tokens, 2), device="cuda")


def run():
    _, offsets, row_slot, slot_row = fmoe.route_plan(top_idx, experts)
    rows = fmoe.dispatch(x, row_slot, slot_row)
    inner = torch.nn.functional.gelu(fmoe.grouped_linear(rows, up, None, offsets))
    y = fmoe.combine(fmoe.grouped_linear(inner, down, None, offsets), score, slot_row)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), (x, score, up, down))]


side = torch.cuda.Stream()
side.wait_stream(torch.cuda.current_stream())
with torch.cuda.stream(side):
    run()
torch.cuda.current_stream().wait_stream(side)

world = comm.start_nccl(nccl, "127.0.0.1", 0, 0, 1, False, 60.0)
flags = torch.ones(4, device="cuda")
comm.all_reduce_(flags, "sum", world)
torch.cuda.synchronize()

# The operation comes after about a second of waiting on a stream of its own.
with torch.cuda.stream(side):
    torch.cuda._sleep(2_000_000_000)
    work = comm.start_all_reduce_(flags, "sum", world)
# Not `torch.cuda.graph`, which waits for the device first.
graph = torch.cuda.CUDAGraph()
capturing = torch.cuda.Stream()
with torch.cuda.stream(capturing):
    graph.capture_begin(capture_error_mode="global")
    captured = run()
    graph.capture_end()
assert not comm.is_done(work), "the operation was over too soon to prove anything"
comm.wait(work)
torch.cuda.synchronize()

for _ in range(3):
    top_idx.copy_(torch.randint(0, experts, (tokens, 2), device="cuda"))
    graph.replay()
    replayed = [t.clone() for t in captured]
    assert all(torch.equal(a, b) for a, b in zip(replayed, run()))
assert flags.tolist() == [1.0] * 4
comm.finish()
print("captured", flush=True)
os._exit(0)
