"""The operators against brute force in float64, forward and gradients, for every dtype and odd shape."""

import pytest
import torch

import reference
from moe_mlp import moe_mlp

fmoe = torch.ops.fmoe

# Unit roundoff: the largest relative error of one rounding.
ROUNDOFF = {torch.float64: 2**-53, torch.float32: 2**-24, torch.float16: 2**-11, torch.bfloat16: 2**-8}
DTYPES = list(ROUNDOFF)


def assert_within(actual, exact, magnitude, length):
    """Sums of `length` products, accumulated in float32 (float64 for float64) and rounded once to the dtype.

    `exact` is the float64 result of the same inputs and `magnitude` the same sum over absolute values: the error of
    the accumulation is at most length · u · magnitude, that of the rounding u · |exact| (half a subnormal for a
    float16 near zero).
    """
    u = ROUNDOFF[actual.dtype]
    accumulation = min(u, 2**-24) * (length + 2) * magnitude
    tiny = 2**-25 if actual.dtype == torch.float16 else 0
    bound = accumulation + u * (exact.abs() + accumulation) + tiny
    error = (actual.double() - exact).abs()
    assert (error <= bound).all(), f"error {error.max():.3e}, over the bound by {(error - bound).max():.3e}"


def routes():
    """(name, top_idx [T, K], number of experts)."""
    generator = torch.Generator().manual_seed(7)

    def distinct(tokens, choices, experts):
        return torch.rand(tokens, experts, generator=generator).argsort(1)[:, :choices]

    dropped = distinct(37, 3, 5)
    dropped[torch.rand(37, 3, generator=generator) < 0.4] = -1
    return [
        ("top-1", distinct(29, 1, 4), 4),
        ("top-2", distinct(41, 2, 8), 8),
        ("top-4", distinct(19, 4, 6), 6),
        ("partly dropped", dropped, 5),
        ("all dropped", torch.full((11, 2), -1), 3),
        ("all on one expert", torch.full((23, 1), 2), 4),
        ("same expert twice", torch.full((9, 2), 1), 3),
        ("one expert", torch.zeros(13, 1, dtype=torch.int64), 1),
        ("no tokens", torch.empty(0, 2, dtype=torch.int64), 4),
        ("one token", torch.tensor([[1, 0]]), 2),
        ("more experts than slots", distinct(3, 2, 40), 40),
    ]


ROUTES = [pytest.param(top_idx, experts, id=name) for name, top_idx, experts in routes()]


@pytest.mark.parametrize("top_idx, experts", ROUTES)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_route_plan(top_idx, experts, dtype):
    for actual, expected in zip(fmoe.route_plan(top_idx.to(dtype), experts), reference.route_plan(top_idx, experts)):
        assert actual.dtype == torch.int64
        assert torch.equal(actual, expected)


def test_route_plan_in_pieces_is_stable():
    """Large enough to be cut between threads; a stable sort is an independent definition of the same order."""
    top_idx = torch.randint(-1, 7, (90_001, 3))
    counts, offsets, row_slot, slot_row = fmoe.route_plan(top_idx, 7)
    flat = top_idx.flatten()
    order = flat.argsort(stable=True)
    kept = order[(flat == -1).sum() :]
    assert torch.equal(row_slot[: len(kept)], kept)
    assert (row_slot[len(kept) :] == -1).all()
    assert torch.equal(counts, torch.bincount(flat[flat >= 0], minlength=7))
    assert torch.equal(offsets, torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]))
    inverse = torch.full_like(flat, -1)
    inverse[kept] = torch.arange(len(kept))
    assert torch.equal(slot_row.flatten(), inverse)


@pytest.mark.parametrize("top_idx, experts", ROUTES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 7, 16, 67])
def test_dispatch(top_idx, experts, dtype, width):
    _, _, row_slot, slot_row = fmoe.route_plan(top_idx, experts)
    x = torch.randn(top_idx.shape[0], width, dtype=dtype, requires_grad=True)
    y = fmoe.dispatch(x, row_slot, slot_row)
    assert torch.equal(y, reference.dispatch(x, row_slot, top_idx.shape[1]))

    grad = torch.randn_like(y)
    (gx,) = torch.autograd.grad(y, x, grad)
    wide = x.detach().double().requires_grad_()
    expected = reference.dispatch(wide, row_slot, top_idx.shape[1])
    if (row_slot >= 0).any():
        (exact,) = torch.autograd.grad(expected, wide, grad.double(), retain_graph=True)
        (magnitude,) = torch.autograd.grad(expected, wide, grad.double().abs())
    else:
        exact = magnitude = torch.zeros_like(wide)
    assert_within(gx, exact, magnitude, top_idx.shape[1])


@pytest.mark.parametrize("top_idx, experts", ROUTES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width_in, width_out", [(1, 3), (17, 9), (40, 65)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_grouped_linear(top_idx, experts, dtype, width_in, width_out, with_bias):
    counts, offsets, row_slot, _ = fmoe.route_plan(top_idx, experts)
    x = torch.randn(row_slot.numel(), width_in, dtype=dtype, requires_grad=True)
    weight = torch.randn(experts, width_out, width_in, dtype=dtype, requires_grad=True)
    bias = torch.randn(experts, width_out, dtype=dtype, requires_grad=True) if with_bias else None
    inputs = [t for t in (x, weight, bias) if t is not None]
    y = fmoe.grouped_linear(x, weight, bias, offsets)
    grad = torch.randn_like(y)
    grads = torch.autograd.grad(y, inputs, grad)

    wide = [t.detach().double().requires_grad_() for t in inputs]
    size = [t.detach().double().abs().requires_grad_() for t in inputs]
    exact = reference.grouped_linear(*wide[:2], wide[2] if with_bias else None, offsets)
    magnitude = reference.grouped_linear(*size[:2], size[2] if with_bias else None, offsets)
    assert_within(y.detach(), exact.detach(), magnitude.detach(), width_in + 1)
    if counts.sum() == 0:
        assert all((g == 0).all() for g in grads)
        return
    exact_grads = torch.autograd.grad(exact, wide, grad.double())
    magnitude_grads = torch.autograd.grad(magnitude, size, grad.double().abs())
    longest = int(counts.max())
    for actual, expected, bound, length in zip(grads, exact_grads, magnitude_grads, [width_out, longest, longest]):
        assert_within(actual, expected, bound, length)
    for empty in (counts == 0).nonzero().flatten().tolist():
        assert all((g[empty] == 0).all() for g in grads[1:])


@pytest.mark.parametrize("dtype", DTYPES)
def test_grouped_linear_in_shares(dtype):
    """Large and skewed enough that threads split experts by rows and by columns, and halves in several pieces."""
    counts = torch.tensor([0, 1500, 3, 0, 700, 1, 0])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    rows, width_in, width_out = int(counts.sum()) + 5, 48, 81
    x = torch.randn(rows, width_in, dtype=dtype, requires_grad=True)
    weight = torch.randn(7, width_out, width_in, dtype=dtype, requires_grad=True)
    bias = torch.randn(7, width_out, dtype=dtype, requires_grad=True)
    y = fmoe.grouped_linear(x, weight, bias, offsets)
    grad = torch.randn_like(y)
    gx, gw, gb = torch.autograd.grad(y, (x, weight, bias), grad)
    assert (y[-5:] == 0).all() and (gx[-5:] == 0).all()
    for e in range(7):
        part = slice(int(offsets[e]), int(offsets[e + 1]))
        xe, ge, we, be = (t.detach().double() for t in (x[part], grad[part], weight[e], bias[e]))
        assert_within(y[part].detach(), xe @ we.T + be, xe.abs() @ we.abs().T + be.abs(), width_in + 1)
        assert_within(gx[part], ge @ we, ge.abs() @ we.abs(), width_out)
        assert_within(gw[e], ge.T @ xe, ge.abs().T @ xe.abs(), int(counts[e]))
        assert_within(gb[e], ge.sum(0), ge.abs().sum(0), int(counts[e]))


@pytest.mark.parametrize("top_idx, experts", ROUTES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("score_dtype", [None, torch.float32])
@pytest.mark.parametrize("width", [1, 7, 16, 67])
def test_combine(top_idx, experts, dtype, score_dtype, width):
    _, _, row_slot, slot_row = fmoe.route_plan(top_idx, experts)
    rows = torch.randn(row_slot.numel(), width, dtype=dtype, requires_grad=True)
    score = torch.rand(top_idx.shape, dtype=score_dtype or dtype, requires_grad=True)
    y = fmoe.combine(rows, score, slot_row)
    grad = torch.randn_like(y)
    grads = torch.autograd.grad(y, (rows, score), grad)
    assert y.dtype == dtype and grads[1].dtype == score.dtype

    wide = [t.detach().double().requires_grad_() for t in (rows, score)]
    size = [t.detach().double().abs().requires_grad_() for t in (rows, score)]
    exact, magnitude = reference.combine(*wide, slot_row), reference.combine(*size, slot_row)
    assert_within(y.detach(), exact.detach(), magnitude.detach(), top_idx.shape[1])
    if not (slot_row >= 0).any():
        assert all((g == 0).all() for g in grads)
        return
    exact_grads = torch.autograd.grad(exact, wide, grad.double())
    magnitude_grads = torch.autograd.grad(magnitude, size, grad.double().abs())
    for actual, expected, bound, length in zip(grads, exact_grads, magnitude_grads, [1, width]):
        assert_within(actual, expected, bound, length)


@pytest.mark.parametrize("top_idx, experts", ROUTES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_whole_layer(top_idx, experts, dtype, tolerance):
    tokens, choices, width, hidden = *top_idx.shape, 19, 33
    weights = [(experts, hidden, width), (experts, hidden), (experts, width, hidden), (experts, width)]
    shapes = [(tokens, width), (tokens, choices), *weights]
    values = [torch.randn(shape, dtype=torch.float64) * 0.5 for shape in shapes]
    ours = [v.to(dtype).requires_grad_() for v in values]
    theirs = [v.to(dtype).double().requires_grad_() for v in values]

    def run(layer, inputs):
        x, score, *parameters = inputs
        return layer(x, top_idx, score, *parameters)

    y, expected = run(moe_mlp, ours), run(reference.moe_mlp, theirs)
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)
    grad = torch.randn_like(expected)
    grads = torch.autograd.grad((y * grad).sum(), ours)
    exact = torch.autograd.grad((expected * grad).sum() + sum(t.sum() * 0 for t in theirs), theirs)
    for actual, want in zip(grads, exact):
        torch.testing.assert_close(actual.double(), want, rtol=tolerance, atol=tolerance * max(1, tokens))
