"""The router losses against their formulas in plain Python numbers, and their derivatives."""

import math

import pytest
import torch

from random_routes import pick, random_route

fmoe = torch.ops.fmoe


def squared_variation(values):
    if len(values) == 1:
        return 0.0
    mean = math.fsum(values) / len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return variance / (mean**2 + 1e-10)


def close(actual, exact, dtype):
    # The longest sums here have a few thousand terms of one sign.
    tolerance = 1e-11 if dtype == torch.float64 else 2e-3
    assert math.isclose(actual.item(), exact, rel_tol=tolerance, abs_tol=tolerance), (actual.item(), exact)
    assert actual.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("seed", range(300))
def test_random_cases(seed):
    generator, top_idx, experts = random_route(
        seed, tokens=[0, 1, 3, 17, 65, 200], experts=[1, 2, 5, 16, 61], choices=[1, 2, 3])
    dtype = pick(generator, [torch.float64, torch.float32, torch.bfloat16])
    tokens, choices = top_idx.shape
    logits = torch.randn(tokens, experts, generator=generator).to(dtype)
    probability = logits.softmax(1)
    flat = top_idx.flatten().tolist()
    counts = [flat.count(e) for e in range(experts)]
    routed = max(1, sum(counts))
    mean = [math.fsum(column) / max(1, tokens) for column in probability.double().t().tolist()]
    close(fmoe.balance_loss(probability, torch.tensor(counts)),
          experts * math.fsum(c / routed * p for c, p in zip(counts, mean)), dtype)

    squares = [math.log(math.fsum(math.exp(v) for v in row)) ** 2 for row in logits.double().tolist()]
    close(fmoe.z_loss(logits), math.fsum(squares) / max(1, tokens), dtype)

    score = torch.rand(tokens, choices, generator=generator).to(dtype)
    importance = [0.0] * experts
    for expert, value in zip(flat, score.double().flatten().tolist()):
        if expert >= 0:
            importance[expert] += value
    close(fmoe.importance_loss(top_idx, score, experts), squared_variation(importance), dtype)

    if dtype != torch.bfloat16:
        clean, deviation = logits, torch.rand(tokens, experts, generator=generator).to(dtype) + 0.1
        noisy = clean + deviation * torch.randn(tokens, experts, generator=generator).to(dtype)
        k = min(choices, experts)
        load = [0.0] * experts
        for c_row, n_row, d_row in zip(*(t.double().tolist() for t in (clean, noisy, deviation))):
            for e in range(experts):
                others = sorted((n for i, n in enumerate(n_row) if i != e), reverse=True)
                if len(others) < k:
                    load[e] += 1.0
                else:
                    load[e] += 0.5 * math.erfc(-(c_row[e] - others[k - 1]) / d_row[e] / math.sqrt(2))
        close(fmoe.load_loss(clean, noisy, deviation, k), squared_variation(load) if k < experts else 0.0, dtype)


def test_even_and_collapsed_routers():
    even = torch.full((8, 4), 0.25)
    assert fmoe.balance_loss(even, torch.tensor([4, 4, 4, 4])).item() == 1
    one = torch.tensor([[1.0, 0, 0, 0]] * 8)
    assert fmoe.balance_loss(one, torch.tensor([8, 0, 0, 0])).item() == 4
    assert fmoe.balance_loss(even, torch.zeros(4, dtype=torch.int64)).item() == 0
    assert fmoe.importance_loss(torch.tensor([[0], [1]]), torch.ones(2, 1), 2).item() == 0


def test_no_noise_gives_finite_loads():
    clean = torch.randn(30, 5, requires_grad=True)
    loss = fmoe.load_loss(clean, clean.detach(), torch.zeros(30, 5), 2)
    chosen = torch.zeros(5).index_add(0, clean.topk(2).indices.flatten(), torch.ones(60))
    assert torch.isclose(loss, chosen.var() / chosen.mean() ** 2)
    loss.backward()
    assert clean.grad.isfinite().all()


def test_gradients_of_both_orders():
    leaf = lambda *shape: torch.rand(*shape, dtype=torch.float64, requires_grad=True)
    top_idx = torch.tensor([[0, 2], [1, -1], [2, 0], [2, 2]])
    noisy = torch.randn(4, 3, dtype=torch.float64)
    for function, inputs in [
        (lambda p: fmoe.balance_loss(p, torch.tensor([3, 1, 4])), (leaf(4, 3),)),
        (fmoe.z_loss, (leaf(4, 3),)),
        (lambda s: fmoe.importance_loss(top_idx, s, 3), (leaf(4, 2),)),
        (lambda c, d: fmoe.load_loss(c, noisy, d + 0.5, 2), (leaf(4, 3), leaf(4, 3))),
    ]:
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


def test_empty_and_meta():
    for device in ("cpu", "meta"):
        empty = torch.zeros(0, 3, device=device)
        assert fmoe.balance_loss(empty, torch.zeros(3, dtype=torch.int64, device=device)).shape == ()
        assert fmoe.z_loss(empty).shape == ()
    assert fmoe.z_loss(torch.zeros(0, 3)).item() == 0


@pytest.mark.parametrize("call, error, message", [
    (lambda: fmoe.balance_loss(torch.zeros(2, 3), torch.zeros(2).long()), ValueError, r"must agree in N"),
    (lambda: fmoe.balance_loss(torch.zeros(2, 3).long(), torch.zeros(3).long()), TypeError, r"probability must have"),
    (lambda: fmoe.z_loss(torch.zeros(3)), ValueError, r"logits must have 2 dimension"),
    (lambda: fmoe.importance_loss(torch.zeros(2, 1).long(), torch.zeros(2, 2), 3), ValueError, r"agree in T and K"),
    (lambda: fmoe.importance_loss(torch.tensor([[0, 9]]), torch.ones(1, 2), 4), IndexError, r"top_idx holds 9"),
    (lambda: fmoe.importance_loss(torch.zeros(1, 2), torch.ones(1, 2), 4), TypeError, r"int64 or int32, got float32"),
    (lambda: fmoe.load_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 2), 1), ValueError, r"one shape"),
    (lambda: fmoe.load_loss(*[torch.zeros(2, 3)] * 3, 4), ValueError, r"k must be at least 1 .* got 4 of 3"),
])
def test_wrong_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
