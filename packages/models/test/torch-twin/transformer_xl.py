"""Transformer-XL language model in plain PyTorch, with the parameter names of the public example.

Shape letters: T target length, B batch, D model width, M memory length.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention import PositionalEmbedding, RelativeAttention, forbidden, shifted_mask
from config import TwinConfig
from moe import MoEPositionwiseFF


class PositionwiseFF(nn.Module):
    def __init__(self, d_model, d_inner, dropout, pre_lnorm):
        super().__init__()
        self.CoreNet = nn.Sequential(
            nn.Linear(d_model, d_inner),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(d_inner, d_model),
            nn.Dropout(dropout),
        )
        self.layer_norm = nn.LayerNorm(d_model)
        self.pre_lnorm = pre_lnorm

    def forward(self, inp: Tensor) -> Tensor:
        if self.pre_lnorm:
            return inp + self.CoreNet(self.layer_norm(inp))
        return self.layer_norm(inp + self.CoreNet(inp))


class DecoderLayer(nn.Module):
    def __init__(self, c: TwinConfig):
        super().__init__()
        self.dec_attn = RelativeAttention(c.n_head, c.d_model, c.d_head, c.dropout, c.dropatt, c.pre_lnorm)
        if c.is_moe:
            self.pos_ff = MoEPositionwiseFF(c.d_model, c.d_inner, c.dropout, c.pre_lnorm, c.num_expert, c.top_k)
        else:
            self.pos_ff = PositionwiseFF(c.d_model, c.d_inner, c.dropout, c.pre_lnorm)

    def forward(self, w, r, r_w_bias, r_r_bias, mask, mem):
        return self.pos_ff(self.dec_attn(w, r, r_w_bias, r_r_bias, mask, mem))


class Embedding(nn.Module):
    def __init__(self, n_token: int, d_model: int):
        super().__init__()
        self.emb_layers = nn.ModuleList([nn.Embedding(n_token, d_model)])
        self.scale = math.sqrt(d_model)

    def forward(self, data: Tensor) -> Tensor:
        return self.emb_layers[0](data) * self.scale


class Criterion(nn.Module):
    def __init__(self, n_token: int, d_model: int):
        super().__init__()
        self.out_layers = nn.ModuleList([nn.Linear(d_model, n_token)])

    def forward(self, hidden: Tensor, target: Tensor) -> Tensor:
        logits = self.out_layers[0](hidden.reshape(-1, hidden.size(-1)))
        return F.cross_entropy(logits, target.reshape(-1), reduction="none").view_as(target)


class TransformerXL(nn.Module):
    def __init__(self, config: TwinConfig):
        super().__init__()
        c = self.config = config
        self.word_emb = Embedding(c.n_token, c.d_model)
        self.drop = nn.Dropout(c.dropout)
        self.layers = nn.ModuleList([DecoderLayer(c) for _ in range(c.n_layer)])
        self.crit = Criterion(c.n_token, c.d_model)
        self.crit.out_layers[0].weight = self.word_emb.emb_layers[0].weight
        self.pos_emb = PositionalEmbedding(c.d_model)
        self.r_w_bias = nn.Parameter(torch.empty(c.n_head, c.d_head))
        self.r_r_bias = nn.Parameter(torch.empty(c.n_head, c.d_head))
        self._masks: dict[tuple, Tensor] = {}
        initialize(self)

    def forward(self, data: Tensor, target: Tensor, mems: list[Tensor] | None = None):
        """data [T+ext_len, B], target [T, B] -> (loss [T, B], n_layer+1 memories [M, B, D], empty without memory)."""
        c = self.config
        qlen, mlen = data.size(0), mems[0].size(0) if mems else 0
        key = (qlen, mlen, self.r_w_bias.dtype)
        if key not in self._masks:
            mask = forbidden(qlen, mlen, c.mem_len, c.same_length)
            self._masks[key] = shifted_mask(mask, self.r_w_bias.dtype)

        hidden = self.drop(self.word_emb(data))
        r = self.drop(self.pos_emb(qlen + mlen, c.clamp_len))
        hids = [hidden]
        for i, layer in enumerate(self.layers):
            mem = mems[i] if mems else None
            hidden = layer(hidden, r, self.r_w_bias, self.r_r_bias, self._masks[key], mem)
            hids.append(hidden)
        loss = self.crit(self.drop(hidden)[-target.size(0) :], target)
        return loss, self.next_mems(hids, mems, mlen, qlen)

    def next_mems(self, hids, mems, mlen, qlen) -> list[Tensor]:
        c = self.config
        if c.mem_len == 0:
            return []
        # The last ext_len positions come again as input of the next segment, so they stay out of the memory.
        used = max(0, qlen - c.ext_len)
        from_mem = min(mlen, max(0, c.mem_len - used))
        out = []
        for i, hid in enumerate(hids):
            fresh = hid.detach()[max(0, used - c.mem_len) : used]
            out.append(torch.cat([mems[i][mlen - from_mem :], fresh], 0) if from_mem else fresh)
        return out

    def balance_loss(self) -> Tensor:
        return torch.stack([layer.pos_ff.gate.loss for layer in self.layers]).mean()


def initialize(model: nn.Module, std: float = 0.02) -> None:
    """N(0, std) for matrices and the two attention biases, N(1, std) for LayerNorm weights, zero for other biases."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("layer_norm.weight"):
                parameter.normal_(1.0, std)
            elif name.endswith(".bias"):
                parameter.zero_()
            else:
                parameter.normal_(0.0, std)
