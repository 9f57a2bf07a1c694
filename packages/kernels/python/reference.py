"""The operators by brute force: one slot at a time, in float64, with nothing from the library under test."""

import torch


def route_plan(top_idx, num_experts):
    """Expert-major, token-major inside an expert; -1 and the tail of row_slot are padding."""
    flat = top_idx.reshape(-1).tolist()
    row_slot = [slot for expert in range(num_experts) for slot, chosen in enumerate(flat) if chosen == expert]
    counts = [flat.count(expert) for expert in range(num_experts)]
    offsets = [sum(counts[:expert]) for expert in range(num_experts + 1)]
    slot_row = [row_slot.index(slot) if flat[slot] >= 0 else -1 for slot in range(len(flat))]
    row_slot += [-1] * (len(flat) - len(row_slot))
    return (
        torch.tensor(counts, dtype=torch.int64),
        torch.tensor(offsets, dtype=torch.int64),
        torch.tensor(row_slot, dtype=torch.int64),
        torch.tensor(slot_row, dtype=torch.int64).reshape(top_idx.shape),
    )


def dispatch(x, row_slot, choices):
    zero = x.new_zeros(x.shape[1])
    rows = [zero if slot < 0 else x[slot // choices] for slot in row_slot.tolist()]
    return torch.stack(rows) if rows else x.new_zeros(0, x.shape[1])


def grouped_linear(x, weight, bias, offsets):
    rows = []
    bounds = offsets.tolist()
    for row in range(x.shape[0]):
        expert = next((e for e in range(len(bounds) - 1) if bounds[e] <= row < bounds[e + 1]), None)
        if expert is None:
            rows.append(x.new_zeros(weight.shape[1]))
        else:
            y = weight[expert] @ x[row]
            rows.append(y if bias is None else y + bias[expert])
    return torch.stack(rows) if rows else x.new_zeros(0, weight.shape[1])


def combine(rows, score, slot_row):
    tokens = []
    for token, slots in enumerate(slot_row.tolist()):
        total = rows.new_zeros(rows.shape[1])
        for choice, row in enumerate(slots):
            if row >= 0:
                total = total + score[token, choice] * rows[row]
        tokens.append(total)
    return torch.stack(tokens) if tokens else rows.new_zeros(0, rows.shape[1])


def moe_mlp(x, top_idx, score, w1, b1, w2, b2):
    """The whole layer without any routing data structure."""
    tokens = []
    for token, experts in enumerate(top_idx.tolist()):
        total = x.new_zeros(w2.shape[1])
        for choice, expert in enumerate(experts):
            if expert >= 0:
                hidden = torch.nn.functional.gelu(w1[expert] @ x[token] + b1[expert])
                total = total + score[token, choice] * (w2[expert] @ hidden + b2[expert])
        tokens.append(total)
    return torch.stack(tokens) if tokens else x.new_zeros(0, w2.shape[1])
