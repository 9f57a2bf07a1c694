"""The same Mixture-of-Experts layer four times: on the fmoe operators, as plain PyTorch grouped products (eager and
compiled), and as a loop over the experts. All have the same router: a linear layer, top-k, softmax over the chosen.

T tokens, D model width, H hidden width, E experts, K choices a token.
"""

import torch
import torch.nn.functional as F


def route(x, gate, choices):
    logits = F.linear(x, gate).float()
    best, top_idx = logits.topk(choices, dim=-1)
    return top_idx, best.softmax(-1)


def activate(hidden, gated):
    if not gated:
        return F.gelu(hidden)
    gate, linear = hidden.chunk(2, -1)
    return F.silu(gate) * linear


def fmoe_layer(x, gate, w1, w2, choices, gated):
    fmoe = torch.ops.fmoe
    top_idx, score = fmoe.topk_gate(F.linear(x, gate), None, choices, "softmax_chosen", False)
    _, offsets, row_slot, slot_row = fmoe.route_plan(top_idx, w1.shape[0])
    return fmoe.moe_mlp(x, w1, None, w2, None, score, row_slot, slot_row, offsets, "swiglu" if gated else "gelu")


def grouped_layer(x, gate, w1, w2, choices, gated, product=torch._grouped_mm):
    """Nothing here waits for the device: counts by bucketing the sorted experts."""
    top_idx, score = route(x, gate, choices)
    flat = top_idx.flatten()
    ordered, order = flat.sort(stable=True)
    experts = torch.arange(w1.shape[0], device=x.device)
    ends = torch.searchsorted(ordered, experts, right=True).to(torch.int32)
    token = order // choices
    hidden = activate(product(x[token], w1.transpose(1, 2), offs=ends), gated)
    rows = product(hidden, w2.transpose(1, 2), offs=ends)
    weighted = rows * score.flatten()[order, None].to(x.dtype)
    return torch.zeros_like(x).index_add(0, token, weighted)


def loop_layer(x, gate, w1, w2, choices, gated):
    top_idx, score = route(x, gate, choices)
    y = torch.zeros_like(x)
    for expert in range(w1.shape[0]):
        token, choice = torch.where(top_idx == expert)
        rows = F.linear(activate(F.linear(x[token], w1[expert]), gated), w2[expert])
        y = y.index_add(0, token, rows * score[token, choice, None].to(x.dtype))
    return y
