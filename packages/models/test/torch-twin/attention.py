"""Relative multi-head attention with memory (Transformer-XL, arXiv 1901.02860, section 3.3; attn_type 0).

Shape letters: Q query length, M memory length, L = M + Q key length, B batch, A heads, C head width, D model width.

The sequence of operators is the one of the TypeScript model, line by line, so that a difference in time is a
difference between the two language bindings and a difference in a number is a mistake.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PositionalEmbedding(nn.Module):
    """Sinusoids of the distances; the table is rebuilt only when the key length changes."""

    inv_freq: Tensor

    def __init__(self, d_model: int):
        super().__init__()
        self.register_buffer("inv_freq", 1 / (10000 ** (torch.arange(0.0, d_model, 2.0) / d_model)))
        self._cache: dict[tuple, Tensor] = {}

    def forward(self, klen: int, clamp_len: int) -> Tensor:
        """[L+1, D]: row j is the distance L-1-j. The last row only fills masked places of the shifted scores."""
        key = (klen, clamp_len, self.inv_freq.dtype, self.inv_freq.device)
        if key not in self._cache:
            distance = torch.arange(klen - 1, -2, -1, dtype=self.inv_freq.dtype, device=self.inv_freq.device)
            distance = distance.clamp(0, clamp_len if clamp_len > 0 else klen)
            angle = torch.outer(distance, self.inv_freq)
            self._cache[key] = torch.cat([angle.sin(), angle.cos()], -1)
        return self._cache[key]


def forbidden(qlen: int, mlen: int, mem_len: int, same_length: bool) -> Tensor:
    """Bool [Q, L], true where query i must not see key j: the future, and with same_length the too distant past."""
    klen = qlen + mlen
    i = torch.arange(qlen).unsqueeze(1)
    j = torch.arange(klen).unsqueeze(0)
    mask = j > i + mlen
    if same_length:
        mask = mask | (j <= i + mlen - mem_len)
    return mask


def shifted_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive mask [1, Q, L+1] laid out before the relative shift: 0 or -inf."""
    qlen, klen = mask.shape
    flat = torch.zeros(qlen * (klen + 1), dtype=dtype)
    flat[qlen - 1 : qlen - 1 + qlen * klen] = torch.zeros(qlen * klen, dtype=dtype).masked_fill(
        mask.reshape(-1), float("-inf")
    )
    return flat.view(1, qlen, klen + 1)


def relative_shift(scores: Tensor, qlen: int, klen: int) -> Tensor:
    """[B*A, Q, L+1] by distance -> [B*A, Q, L] by key: a view, since row i starts i places earlier than row 0."""
    return scores.view(scores.size(0), -1).narrow(1, qlen - 1, qlen * klen).view(-1, qlen, klen)


class RelativeAttention(nn.Module):
    def __init__(self, n_head, d_model, d_head, dropout, dropatt, pre_lnorm):
        super().__init__()
        self.n_head, self.d_head, self.pre_lnorm = n_head, d_head, pre_lnorm
        self.scale = d_head**-0.5
        self.qkv_net = nn.Linear(d_model, 3 * n_head * d_head, bias=False)
        self.drop = nn.Dropout(dropout)
        self.dropatt = nn.Dropout(dropatt)
        self.o_net = nn.Linear(n_head * d_head, d_model, bias=False)
        self.layer_norm = nn.LayerNorm(d_model)
        self.r_net = nn.Linear(d_model, n_head * d_head, bias=False)

    def forward(self, w, r, r_w_bias, r_r_bias, mask, mem):
        """w [Q,B,D], r [L+1,D], biases [A,C], mask [1,Q,L+1], mem [M,B,D] or None -> [Q,B,D]."""
        qlen, bsz, _ = w.shape
        heads = self.n_head * self.d_head
        weight = self.qkv_net.weight

        # The memory has no gradient and asks no queries, so it is projected apart, with the rows of keys and values.
        source = self.layer_norm(w) if self.pre_lnorm else w
        q, k, v = F.linear(source, weight).chunk(3, -1)
        if mem is not None:
            source = self.layer_norm(mem) if self.pre_lnorm else mem
            mem_k, mem_v = F.linear(source, weight.narrow(0, heads, 2 * heads)).chunk(2, -1)
            k = torch.cat([mem_k, k], 0)
            v = torch.cat([mem_v, v], 0)
        klen = k.size(0)
        batch = bsz * self.n_head

        q = (q * self.scale).view(qlen, bsz, self.n_head, self.d_head)
        q_content = (q + r_w_bias * self.scale).view(qlen, batch, self.d_head).transpose(0, 1)
        q_position = (q + r_r_bias * self.scale).view(qlen, batch, self.d_head).transpose(0, 1)
        k = k.reshape(klen, batch, self.d_head).permute(1, 2, 0)
        v = v.reshape(klen, batch, self.d_head).transpose(0, 1)
        r = self.r_net(r).view(klen + 1, self.n_head, self.d_head).permute(1, 2, 0)
        r = r.expand(bsz, self.n_head, self.d_head, klen + 1).reshape(batch, self.d_head, klen + 1)

        by_distance = torch.baddbmm(mask, q_position, r)
        scores = torch.baddbmm(relative_shift(by_distance, qlen, klen), q_content, k)
        prob = self.dropatt(scores.softmax(-1))
        out = torch.bmm(prob, v).transpose(0, 1).reshape(qlen, bsz, heads)
        out = self.drop(self.o_net(out))
        return w + out if self.pre_lnorm else self.layer_norm(w + out)
