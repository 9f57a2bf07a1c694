"""The training step shared by the fixtures, the parity check and the overhead benchmark."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from transformer_xl import TransformerXL


@dataclass
class Trace:
    """What a run leaves behind: one loss a step, gradient norms of the first step, routing [steps, layers, T, K]."""

    losses: list[float] = field(default_factory=list)
    balance: list[float] = field(default_factory=list)
    grad_norms: dict[str, float] = field(default_factory=dict)
    routing: list[Tensor] = field(default_factory=list)


def training_step(model: TransformerXL, optimizer, data: Tensor, target: Tensor, mems: list[Tensor]):
    """One step; returns the mean language-model loss, the balance loss (or None) and the new memories."""
    loss, mems = model(data, target, mems)
    loss = loss.mean()
    balance = model.balance_loss() if model.config.is_moe else None
    total = loss if balance is None else loss + model.config.balance_weight * balance
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    optimizer.step()
    return loss.detach(), None if balance is None else balance.detach(), mems


def run(
    model: TransformerXL,
    batches: Iterable[tuple[Tensor, Tensor]],
    lr: float,
    forced_routing: Sequence[Tensor] | None = None,
    fused: bool = True,
) -> Trace:
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=fused)
    mems: list[Tensor] = []
    trace = Trace()
    gates = [layer.pos_ff.gate for layer in model.layers] if model.config.is_moe else []
    for step, (data, target) in enumerate(batches):
        for i, gate in enumerate(gates):
            gate.forced_top_idx = None if forced_routing is None else forced_routing[step][i]
        loss, balance, mems = training_step(model, optimizer, data, target, mems)
        if step == 0:
            trace.grad_norms = {name: float(p.grad.norm()) for name, p in model.named_parameters()}
        trace.losses.append(float(loss))
        if balance is not None:
            trace.balance.append(float(balance))
            trace.routing.append(torch.stack([gate.last_top_idx for gate in gates]))
    return trace


def stream_batches(stream: Tensor, tgt_len: int, ext_len: int, count: int) -> list[tuple[Tensor, Tensor]]:
    """Cuts a stream [length, B] into consecutive segments; each input also carries ext_len earlier tokens."""
    out = []
    for step in range(count):
        start = ext_len + step * tgt_len
        out.append(
            (
                stream[start - ext_len : start + tgt_len].contiguous(),
                stream[start + 1 : start + tgt_len + 1].contiguous(),
            )
        )
    return out
