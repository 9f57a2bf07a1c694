"""Derivatives by finite differences, registration checks, repeatability, autocast and tracing."""

import pytest
import torch

from moe_mlp import moe_mlp

fmoe = torch.ops.fmoe

ROUTES = [
    pytest.param(torch.tensor([[0, 2], [2, -1], [1, 0], [2, 1]]), 4, id="an empty expert and a dropped slot"),
    pytest.param(torch.tensor([[1], [0], [1]]), 2, id="top-1"),
    pytest.param(torch.full((3, 2), -1), 2, id="all dropped"),
    pytest.param(torch.zeros(4, 1, dtype=torch.int64), 1, id="one expert"),
]


def leaf(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def cases(top_idx, experts):
    """(function of its differentiable inputs, those inputs) for every operator."""
    _, offsets, row_slot, slot_row = fmoe.route_plan(top_idx, experts)
    rows, (tokens, choices) = row_slot.numel(), top_idx.shape
    return {
        "dispatch": (lambda x: fmoe.dispatch(x, row_slot, slot_row), (leaf(tokens, 3),)),
        "dispatch_backward": (lambda g: fmoe.dispatch_backward(g, row_slot, slot_row), (leaf(rows, 3),)),
        "grouped_linear": (
            lambda x, w, b: fmoe.grouped_linear(x, w, b, offsets),
            (leaf(rows, 3), leaf(experts, 5, 3), leaf(experts, 5)),
        ),
        "grouped_linear without bias": (
            lambda x, w: fmoe.grouped_linear(x, w, None, offsets),
            (leaf(rows, 3), leaf(experts, 2, 3)),
        ),
        "grouped_linear_input_grad": (
            lambda g, w: fmoe.grouped_linear_input_grad(g, w, offsets),
            (leaf(rows, 2), leaf(experts, 2, 3)),
        ),
        "grouped_linear_weight_grad": (
            lambda g, x: fmoe.grouped_linear_weight_grad(g, x, offsets, True),
            (leaf(rows, 2), leaf(rows, 3)),
        ),
        "combine": (lambda r, s: fmoe.combine(r, s, slot_row), (leaf(rows, 3), leaf(tokens, choices))),
        "combine_backward": (
            lambda g, r, s: fmoe.combine_backward(g, r, s, slot_row),
            (leaf(tokens, 3), leaf(rows, 3), leaf(tokens, choices)),
        ),
        "layer": (
            lambda x, s, *p: moe_mlp(x, top_idx, s, *p),
            (leaf(tokens, 2), leaf(tokens, choices), leaf(experts, 3, 2), leaf(experts, 3), leaf(experts, 2, 3),
             leaf(experts, 2)),
        ),
    }


CASES = list(cases(torch.zeros(1, 1, dtype=torch.int64), 1))
OPERATORS = [name for name in CASES if hasattr(fmoe, name)]


@pytest.mark.parametrize("top_idx, experts", ROUTES)
@pytest.mark.parametrize("name", CASES)
def test_gradients_of_both_orders(top_idx, experts, name):
    function, inputs = cases(top_idx, experts)[name]
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_gradient_only_where_asked():
    top_idx = torch.tensor([[0, 1], [1, 0]])
    _, offsets, row_slot, slot_row = fmoe.route_plan(top_idx, 2)
    x, weight, bias = leaf(4, 3), leaf(2, 5, 3), leaf(2, 5)
    full = torch.autograd.grad(fmoe.grouped_linear(x, weight, bias, offsets).sin().sum(), (x, weight, bias))
    for i in range(3):
        inputs = [t.detach().requires_grad_(i == j) for j, t in enumerate((x, weight, bias))]
        fmoe.grouped_linear(*inputs, offsets).sin().sum().backward()
        assert torch.equal(inputs[i].grad, full[i])
        assert all(t.grad is None for j, t in enumerate(inputs) if j != i)
    plain = fmoe.combine(x.detach(), torch.ones(2, 2, dtype=torch.float64), slot_row)
    assert not plain.requires_grad
    with torch.no_grad():
        assert not fmoe.dispatch(leaf(2, 3), row_slot, slot_row).requires_grad


def test_expanded_and_strided_arguments():
    """A gradient of stride 0, transposed weights and sliced rows: all legal, none contiguous."""
    offsets = torch.tensor([0, 3, 5])
    x = torch.randn(10, 4, dtype=torch.float64)[::2].requires_grad_()
    weight = torch.randn(2, 4, 3, dtype=torch.float64).transpose(1, 2).requires_grad_()
    fmoe.grouped_linear(x, weight, None, offsets).sum().backward()
    dense_x, dense_w = (t.detach().contiguous().requires_grad_() for t in (x, weight))
    rows = torch.cat([dense_x[:3] @ dense_w[0].T, dense_x[3:] @ dense_w[1].T])
    rows.sum().backward()
    torch.testing.assert_close(x.grad, dense_x.grad)
    torch.testing.assert_close(weight.grad, dense_w.grad)
    wide = torch.randn(4, 5, dtype=torch.float64).t()
    _, _, row_slot, slot_row = fmoe.route_plan(torch.tensor([[0, 1, 0, 1]]).expand(5, 2, 4)[:, 0, ::2], 2)
    assert torch.equal(fmoe.dispatch(wide, row_slot, slot_row), wide[row_slot // 2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_same_bits_every_time(dtype):
    tokens, width, hidden, experts = 600, 48, 96, 5
    top_idx = torch.rand(tokens, experts).argsort(1)[:, :2]
    weights = [(experts, hidden, width), (experts, hidden), (experts, width, hidden), (experts, width)]
    shapes = [(tokens, width), (tokens, 2), *weights]
    inputs = [(torch.randn(shape) * 0.3).to(dtype).requires_grad_() for shape in shapes]

    def run():
        y = moe_mlp(inputs[0], top_idx, *inputs[1:])
        return [y.detach(), *torch.autograd.grad(y.square().mean(), inputs)]

    first = run()
    assert all(t.isfinite().all() and t.any() for t in first)
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(first, run()))


def test_row_operators_do_not_depend_on_the_thread_count():
    top_idx = torch.randint(-1, 9, (20_000, 3))
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        _, offsets, row_slot, slot_row = plan = fmoe.route_plan(top_idx, 9)
        torch.manual_seed(1)
        x, score = torch.randn(20_000, 9, requires_grad=True), torch.rand(20_000, 3, requires_grad=True)
        y = fmoe.combine(fmoe.dispatch(x, row_slot, slot_row), score, slot_row)
        results.append([*plan, y, *torch.autograd.grad(y.square().sum(), (x, score))])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


@pytest.mark.parametrize("name", OPERATORS)
def test_registration(name):
    """Schema, fake tensors, autograd registration and ahead-of-time dispatch, by PyTorch's own checker."""
    top_idx = torch.tensor([[0, 2], [2, -1], [1, 0]])
    _, offsets, row_slot, slot_row = plan = fmoe.route_plan(top_idx, 4)
    _, inputs = cases(top_idx, 4)[name]
    extra = {
        "dispatch": (row_slot, slot_row),
        "dispatch_backward": (row_slot, slot_row),
        "grouped_linear": (offsets,),
        "grouped_linear_input_grad": (offsets,),
        "grouped_linear_weight_grad": (offsets, True),
        "combine": (slot_row,),
        "combine_backward": (slot_row,),
    }[name]
    torch.library.opcheck(getattr(fmoe, name).default, (*inputs, *extra))
    torch.library.opcheck(fmoe.route_plan.default, (top_idx, 4))
    assert len(plan) == 4


def test_traced_with_symbolic_sizes():
    w1, b1, w2, b2 = (torch.randn(s) for s in ((3, 8, 4), (3, 8), (3, 4, 8), (3, 4)))
    compiled = torch.compile(moe_mlp, backend="aot_eager", fullgraph=True, dynamic=True)
    for tokens in (5, 9, 14):
        x, score = torch.randn(tokens, 4, requires_grad=True), torch.rand(tokens, 2)
        top_idx = torch.randint(0, 3, (tokens, 2))
        y, expected = (f(x, top_idx, score, w1, b1, w2, b2) for f in (compiled, moe_mlp))
        assert torch.equal(y, expected)
        grads = [torch.autograd.grad(out.square().sum(), x)[0] for out in (y, expected)]
        assert torch.equal(*grads)


def test_autocast_runs_the_linear_in_bfloat16():
    x, weight, bias = (torch.randn(s, requires_grad=True) for s in ((6, 4), (2, 5, 4), (2, 5)))
    offsets = torch.tensor([0, 2, 6])
    with torch.autocast("cpu", torch.bfloat16):
        y = fmoe.grouped_linear(x, weight, bias, offsets)
    assert y.dtype == torch.bfloat16
    low = [t.detach().bfloat16() for t in (x, weight, bias)]
    assert torch.equal(y, fmoe.grouped_linear(*low, offsets))
    y.float().sum().backward()
    assert all(t.grad.dtype == torch.float32 for t in (x, weight, bias))
