"""A Mixture-of-Experts feed-forward in plain PyTorch: stable sort by expert, one pair of matrix products per expert.

Shape letters: T tokens, D model width, H hidden width, N experts, K top-k, R = T*K routed rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NaiveGate(nn.Module):
    """Top-k of linear logits; the score is the softmax over the k chosen ones."""

    def __init__(self, d_model: int, num_expert: int, top_k: int):
        super().__init__()
        self.gate = nn.Linear(d_model, num_expert)
        self.top_k = top_k
        self.loss: Tensor | None = None
        self.last_top_idx: Tensor | None = None
        self.forced_top_idx: Tensor | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.gate(x)
        if self.forced_top_idx is None:
            top_logits, top_idx = logits.topk(self.top_k, dim=-1)
        else:
            top_idx = self.forced_top_idx
            top_logits = logits.gather(-1, top_idx)
        self.last_top_idx = top_idx
        self.loss = balance_loss(logits, top_idx)
        return top_idx, top_logits.softmax(-1)


def balance_loss(logits: Tensor, top_idx: Tensor) -> Tensor:
    """N * sum_e f_e * P_e: f_e = share of the T*K routed slots (no gradient), P_e = mean probability (GShard)."""
    num_expert = logits.size(-1)
    share = torch.bincount(top_idx.reshape(-1), minlength=num_expert).to(logits.dtype) / top_idx.numel()
    return num_expert * (share * logits.softmax(-1).mean(0)).sum()


class ExpertLinear(nn.Module):
    def __init__(self, num_expert: int, d_in: int, d_out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_expert, d_out, d_in))
        self.bias = nn.Parameter(torch.zeros(num_expert, d_out))


class Experts(nn.Module):
    def __init__(self, num_expert: int, d_model: int, d_hidden: int, dropout: float):
        super().__init__()
        self.htoh4 = ExpertLinear(num_expert, d_model, d_hidden)
        self.h4toh = ExpertLinear(num_expert, d_hidden, d_model)
        self.dropout = dropout

    def forward(self, rows: Tensor, counts: list[int]) -> Tensor:
        """rows [R,D] grouped by expert -> [R,D]."""
        # unbind, not indexing: its backward stacks the gradients once instead of filling one full tensor per expert.
        weights = zip(*(t.unbind(0) for t in (self.htoh4.weight, self.htoh4.bias, self.h4toh.weight, self.h4toh.bias)))
        out = []
        for chunk, (w1, b1, w2, b2) in zip(rows.split(counts), weights):
            hidden = F.dropout(F.linear(chunk, w1, b1).relu(), self.dropout, self.training)
            out.append(F.linear(hidden, w2, b2))
        return torch.cat(out, 0)


class MoEPositionwiseFF(nn.Module):
    def __init__(self, d_model, d_inner, dropout, pre_lnorm, num_expert, top_k):
        super().__init__()
        self.gate = NaiveGate(d_model, num_expert, top_k)
        self.experts = Experts(num_expert, d_model, d_inner, dropout)
        self.layer_norm = nn.LayerNorm(d_model)
        self.drop = nn.Dropout(dropout)
        self.pre_lnorm = pre_lnorm

    def forward(self, inp: Tensor) -> Tensor:
        x = self.layer_norm(inp) if self.pre_lnorm else inp
        out = self.drop(self.route(x.reshape(-1, x.size(-1))).view_as(inp))
        return inp + out if self.pre_lnorm else self.layer_norm(inp + out)

    def route(self, x: Tensor) -> Tensor:
        top_idx, score = self.gate(x)
        tokens, top_k = top_idx.shape
        flat = top_idx.reshape(-1)
        order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=self.gate.gate.out_features).tolist()
        rows = self.experts(x.index_select(0, order // top_k), counts)
        slot_row = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel()))
        slots = rows.index_select(0, slot_row).view(tokens, top_k, -1)
        return torch.bmm(score.unsqueeze(1), slots).squeeze(1)
