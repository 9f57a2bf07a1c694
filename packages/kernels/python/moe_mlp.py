"""One Mixture-of-Experts MLP on the fmoe operators, from Python.

    python moe_mlp.py [path of libfmoe_kernels.so]

T tokens, D model width, H hidden width, N experts, K choices a token.
"""

import pathlib
import sys

import torch

LIBRARY = pathlib.Path(__file__).parent.parent / "native" / "build" / "libfmoe_kernels.so"


def moe_mlp(x, top_idx, score, w1, b1, w2, b2):
    """x [T, D], top_idx and score [T, K], w1 [N, H, D], b1 [N, H], w2 [N, D, H], b2 [N, D] -> [T, D]."""
    fmoe = torch.ops.fmoe
    _, offsets, row_slot, slot_row = fmoe.route_plan(top_idx, w1.shape[0])
    rows = fmoe.dispatch(x, row_slot, slot_row)
    hidden = torch.nn.functional.gelu(fmoe.grouped_linear(rows, w1, b1, offsets))
    return fmoe.combine(fmoe.grouped_linear(hidden, w2, b2, offsets), score, slot_row)


def main():
    torch.ops.load_library(sys.argv[1] if len(sys.argv) > 1 else LIBRARY)
    torch.manual_seed(0)
    tokens, width, hidden, experts, top_k = 512, 64, 128, 8, 2
    gate = torch.nn.Linear(width, experts)
    w1 = torch.nn.Parameter(torch.randn(experts, hidden, width) / width**0.5)
    b1 = torch.nn.Parameter(torch.zeros(experts, hidden))
    w2 = torch.nn.Parameter(torch.randn(experts, width, hidden) / hidden**0.5)
    b2 = torch.nn.Parameter(torch.zeros(experts, width))
    optimizer = torch.optim.Adam([*gate.parameters(), w1, b1, w2, b2], 1e-2)
    x = torch.randn(tokens, width)
    target = torch.sin(3 * x.roll(1, dims=1))
    for step in range(101):
        logits, top_idx = gate(x).topk(top_k)
        y = moe_mlp(x, top_idx, logits.softmax(-1), w1, b1, w2, b2)
        loss = torch.nn.functional.mse_loss(y, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(f"step {step:3d}  loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
