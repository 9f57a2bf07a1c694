"""The operators on a GPU: randomised shapes against float64, repeatability, graphs, values out of range.

Whole test files of the CPU are not repeated here: every case compares with formulas in float64 on the same inputs.
T tokens, K choices, E experts, D features.
"""

import random

import pytest
import torch

from test_parity import ROUNDOFF, assert_within

fmoe = torch.ops.fmoe
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

DTYPES = list(ROUNDOFF)
CASES = range(300)
ACTIVATIONS = ["gelu", "gelu_tanh", "relu", "silu", "swiglu", "geglu", "reglu"]
# What take_device_errors tells of, in its order.
FLAGS = ["top_idx", "row_slot", "slot_row", "offsets", "logits", "expert_count", "capacity", "selection_bias"]


@pytest.fixture(autouse=True)
def exact_products():
    torch.backends.cuda.matmul.allow_tf32 = False


class Case:
    """A shape and a route, drawn from the number of the case."""

    def __init__(self, number, largest=5000):
        draw = random.Random(number)
        self.dtype = DTYPES[number % 4]
        self.tokens = draw.choice([0, 1, 2, 63, 129, int(largest ** draw.random()), draw.randint(1, largest)])
        self.choices = draw.randint(1, 8)
        self.experts = draw.choice([1, 2, 3, 8, 64, 257, draw.randint(1, 257)])
        self.kind = draw.choice(["even", "even", "skewed", "some dropped", "all dropped", "one expert"])
        self.widths = [draw.choice([1, 7, 8, 16, 33, 64, 130, 136, draw.randint(1, 200)]) for _ in range(2)]
        generator = torch.Generator("cuda").manual_seed(number)
        shape = (self.tokens, self.choices)
        uniform = torch.rand(shape, generator=generator, device="cuda")
        self.top_idx = (uniform * self.experts).long()
        if self.kind == "skewed":
            self.top_idx = (uniform**4 * self.experts).long()
        elif self.kind == "some dropped":
            self.top_idx[torch.rand(shape, generator=generator, device="cuda") < 0.3] = -1
        elif self.kind == "all dropped":
            self.top_idx.fill_(-1)
        elif self.kind == "one expert":
            self.top_idx.fill_(self.experts - 1)
        if draw.random() < 0.3:
            self.top_idx = self.top_idx.int()
        torch.manual_seed(number)

    def normal(self, *shape, dtype=None):
        return torch.randn(shape, device="cuda", dtype=torch.float64).to(dtype or self.dtype).requires_grad_()


def double(*tensors):
    return [t.detach().double() for t in tensors]


def raised(on_device):
    """The flags of the device, which are cleared."""
    return [name for name, flag in zip(FLAGS, fmoe.take_device_errors(on_device).tolist(), strict=True) if flag]


def gather(values, index):
    """values[index], zeros where the index is -1."""
    if values.shape[0] == 0:
        return values.new_zeros(*index.shape, *values.shape[1:])
    return values[index.clamp(min=0)] * (index >= 0).to(values.dtype)[..., None]


@pytest.mark.parametrize("number", CASES)
def test_route_plan(number):
    case = Case(number, largest=60_000 if number % 10 == 0 else 5000)
    counts, offsets, row_slot, slot_row = fmoe.route_plan(case.top_idx, case.experts)
    flat = case.top_idx.flatten().long()
    order = flat.argsort(stable=True)
    kept = order[(flat == -1).sum() :]
    assert torch.equal(counts, torch.bincount(flat[flat >= 0], minlength=case.experts))
    assert torch.equal(offsets, torch.cat([counts.new_zeros(1), counts.cumsum(0)]))
    assert torch.equal(row_slot[: len(kept)], kept) and (row_slot[len(kept) :] == -1).all()
    inverse = torch.full_like(flat, -1)
    inverse[kept] = torch.arange(len(kept), device="cuda")
    assert torch.equal(slot_row.flatten(), inverse)


@pytest.mark.parametrize("experts", [1025, 2500, 4096])
@pytest.mark.parametrize("tokens", [1, 500, 40_000])
def test_route_plan_of_many_experts(experts, tokens):
    top_idx = torch.randint(-1, experts, (tokens, 3), device="cuda")
    for actual, expected in zip(fmoe.route_plan(top_idx, experts), fmoe.route_plan(top_idx.cpu(), experts)):
        assert torch.equal(actual.cpu(), expected)


@pytest.mark.parametrize("number", CASES)
def test_dispatch(number):
    case = Case(number)
    _, _, row_slot, slot_row = fmoe.route_plan(case.top_idx, case.experts)
    x = case.normal(case.tokens, case.widths[0])
    y = fmoe.dispatch(x, row_slot, slot_row)
    token = torch.where(row_slot >= 0, row_slot // case.choices, -1)
    assert torch.equal(y, gather(x.detach(), token))
    grad = torch.randn_like(y)
    (gx,) = torch.autograd.grad(y, x, grad)
    copies = gather(grad.double(), slot_row)
    assert_within(gx, copies.sum(1), copies.abs().sum(1), case.choices)


@pytest.mark.parametrize("number", CASES)
def test_combine(number):
    case = Case(number)
    _, _, row_slot, slot_row = fmoe.route_plan(case.top_idx, case.experts)
    rows = case.normal(row_slot.numel(), case.widths[0])
    score = case.normal(case.tokens, case.choices, dtype=torch.float32 if number % 3 == 0 else case.dtype)
    y = fmoe.combine(rows, score, slot_row)
    grad = torch.randn_like(y)
    rows_grad, score_grad = torch.autograd.grad(y, (rows, score), grad)
    wide, factor, incoming = double(rows, score, grad)
    terms = gather(wide, slot_row) * factor[..., None]
    assert_within(y.detach(), terms.sum(1), terms.abs().sum(1), case.choices)
    slot = row_slot.clamp(min=0)
    if case.tokens > 0:
        used = (row_slot >= 0)[:, None]
        exact = incoming[slot // case.choices] * factor.flatten()[slot][:, None] * used
        assert_within(rows_grad, exact, exact.abs(), 1)
    products = gather(wide, slot_row) * incoming[:, None, :]
    assert_within(score_grad, products.sum(-1), products.abs().sum(-1), case.widths[0])


def exact_gate(logits, bias, k, function, normalize):
    """Choice and scores from their definition, in float64; the stable sort puts the lower of equal experts first."""
    scores = {"softmax_chosen": lambda v: v, "softmax": lambda v: v.softmax(-1), "sigmoid": torch.sigmoid}[function](logits)
    key = logits if bias is None else scores + bias
    top_idx = key.argsort(dim=-1, descending=True, stable=True)[:, :k]
    chosen = scores.gather(1, top_idx)
    if function == "softmax_chosen":
        return top_idx, chosen.softmax(-1)
    return top_idx, chosen / chosen.sum(-1, keepdim=True) if normalize else chosen


@pytest.mark.parametrize("number", CASES)
def test_topk_gate(number):
    """Logits on a coarse grid, so that experts tie often and the choice is exact in every dtype."""
    case = Case(number, largest=2000)
    k = min(case.choices, case.experts)
    function = ["softmax_chosen", "softmax", "sigmoid"][number % 3]
    normalize = number // 3 % 2 == 0
    grid = torch.randint(-12, 13, (case.tokens, case.experts), device="cuda") / 4
    logits = grid.to(case.dtype).requires_grad_()
    # Steps of 1/4 would tie with differences of scores; these never do, except through equal logits and biases.
    bias = torch.randint(0, 3, (case.experts,), device="cuda").double() * 10 if number % 5 == 0 else None
    top_idx, score = fmoe.topk_gate(logits, None if bias is None else bias.float(), k, function, normalize)
    wide = logits.detach().double().requires_grad_()
    expected_idx, expected = exact_gate(wide, bias, k, function, normalize)
    if bias is None or function == "softmax_chosen":
        assert torch.equal(top_idx, expected_idx)
    assert score.dtype == (torch.float64 if case.dtype == torch.float64 else torch.float32)
    expected = expected if torch.equal(top_idx, expected_idx) else None
    if expected is None:  # two keys closer than float32 tells apart: the same keys all the same
        return
    u = ROUNDOFF[score.dtype]
    assert ((score - expected).abs() <= 16 * u * expected.abs() + 4 * u).all()
    if case.tokens == 0:
        return
    grad = torch.randn_like(score)
    (actual,) = torch.autograd.grad(score, logits, grad)
    (exact,) = torch.autograd.grad(expected, wide, grad.double())
    bound = ROUNDOFF[case.dtype] * exact.abs() + 64 * u * grad.abs().max().double() + (2**-25 if case.dtype == torch.float16 else 0)
    assert ((actual.double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("experts, k", [(1024, 4), (4096, 1), (4096, 8), (5, 5)])
def test_topk_gate_of_many_experts_and_bad_logits(experts, k):
    logits = torch.randn(257, experts, device="cuda")
    logits[3, 1], logits[4, 2] = -torch.inf, -torch.inf
    top_idx, score = fmoe.topk_gate(logits, None, k, "softmax", False)
    best = logits.double().softmax(-1).topk(k)
    assert torch.equal(top_idx, best.indices)
    torch.testing.assert_close(score.double(), best.values, rtol=1e-5, atol=1e-7)
    fmoe.take_device_errors(logits)
    broken = logits.clone()
    broken[9, 0], broken[10, 3] = torch.nan, torch.inf
    masked = logits.clone()
    masked[9, 0], masked[10, 3] = -torch.inf, -torch.inf
    for actual, expected in zip(*(fmoe.topk_gate(t, None, k, "softmax", False) for t in (broken, masked))):
        assert torch.equal(actual, expected)
    assert raised(logits) == ["logits"]


@pytest.mark.parametrize("function, normalize", [("softmax_chosen", True), ("softmax", False), ("sigmoid", True)])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_bias_that_is_not_finite_is_flagged_and_its_expert_comes_last(function, normalize, value):
    logits, bias = torch.randn(65, 40, device="cuda"), torch.randn(40, device="cuda")
    fmoe.take_device_errors(logits)
    fmoe.topk_gate(logits, bias, 39, function, normalize)
    assert raised(logits) == []
    bias[37] = value
    top_idx, _ = fmoe.topk_gate(logits, bias, 39, function, normalize)
    assert not (top_idx == 37).any()
    assert raised(logits) == ["selection_bias"]


def test_negative_counts_and_capacities_are_flagged_and_act_as_zero():
    count, capacity = torch.tensor([3, 2, 4, 1], device="cuda"), torch.tensor([5, 2], device="cuda")
    fmoe.take_device_errors(count)
    assert fmoe.limit_by_capacity(count, capacity).tolist() == [3, 2, 2, 0] and raised(count) == []
    count[0] = -3
    assert fmoe.limit_by_capacity(count, capacity).tolist() == [0, 2, 4, 0] and raised(count) == ["expert_count"]
    count[0], capacity[1] = 3, -1
    assert fmoe.limit_by_capacity(count, capacity).tolist() == [3, 0, 2, 0] and raised(count) == ["capacity"]


@pytest.mark.parametrize("number", CASES)
def test_counts_and_capacity(number):
    """The same operators of the CPU, whose tests define them, on the same integers."""
    case = Case(number)
    top_idx, experts = case.top_idx, case.experts
    counts = fmoe.expert_count(top_idx, experts)
    assert torch.equal(counts, torch.bincount(top_idx.flatten()[top_idx.flatten() >= 0], minlength=experts))
    ends = counts.cumsum(0)
    assert torch.equal(fmoe.assign_pos(ends, top_idx).cpu(), fmoe.assign_pos(ends.cpu(), top_idx.cpu()))
    capacity = torch.randint(0, 50, (experts,), device="cuda")
    given = torch.randint(0, 40, (experts * 3,), device="cuda")
    assert torch.equal(
        fmoe.limit_by_capacity(given, capacity).cpu(), fmoe.limit_by_capacity(given.cpu(), capacity.cpu()))
    pruned = fmoe.prune_gate_by_capacity(top_idx, capacity)
    assert torch.equal(pruned.cpu(), fmoe.prune_gate_by_capacity(top_idx.cpu(), capacity.cpu()))
    first = top_idx[:, 0]
    assert torch.equal(
        fmoe.prune_gate_by_capacity(first, capacity).cpu(), fmoe.prune_gate_by_capacity(first.cpu(), capacity.cpu()))


def check_grouped_linear(case, with_bias, unit=None):
    width_in, width_out = case.widths
    _, offsets, row_slot, _ = fmoe.route_plan(case.top_idx, case.experts)
    x = case.normal(row_slot.numel(), width_in)
    weight = case.normal(case.experts, width_out, width_in)
    bias = case.normal(case.experts, width_out) if with_bias else None
    inputs = [t for t in (x, weight, bias) if t is not None]
    y = fmoe.grouped_linear(x, weight, bias, offsets)
    grad = torch.randn_like(y)
    gx, gw, *gb = torch.autograd.grad(y, inputs, grad)
    ends = offsets.tolist()
    assert (y[ends[-1] :] == 0).all() and (gx[ends[-1] :] == 0).all()

    def within(actual, a, b, addend, length):
        """actual = a @ b + addend. libtorch's product is rounded before the bias is added."""
        exact, size = a @ b, a.abs() @ b.abs()
        if unit is not None:
            assert ((actual.double() - exact).abs() <= unit * size).all()
            return
        if addend is not None:
            slack = ROUNDOFF[actual.dtype] * exact.abs() if actual.dtype == torch.bfloat16 else 0
            exact, size = exact + addend, size + addend.abs() + slack / 2**-24 / (length + 3)
        assert_within(actual, exact, size, length + 1)

    for e in range(case.experts):
        part = slice(ends[e], ends[e + 1])
        if part.start == part.stop:
            assert (gw[e] == 0).all() and all((g[e] == 0).all() for g in gb)
            continue
        xe, ge, we = double(x[part], grad[part], weight[e])
        within(y[part].detach(), xe, we.T, bias[e].detach().double() if with_bias else None, width_in)
        within(gx[part], ge, we, None, width_out)
        within(gw[e], ge.T, xe, None, part.stop - part.start)
        if gb:
            assert_within(gb[0][e], ge.sum(0), ge.abs().sum(0), part.stop - part.start)


@pytest.mark.parametrize("number", CASES)
def test_grouped_linear(number):
    check_grouped_linear(Case(number, largest=1500), with_bias=number // 4 % 2 == 0)


@pytest.mark.parametrize("number", range(2, 60, 4))
def test_grouped_linear_of_wide_layers(number):
    """Widths of several tiles, and 16-byte rows."""
    case = Case(number, largest=1500)
    case.dtype = DTYPES[number // 4 % 4]
    case.widths = [[256, 384], [384, 200], [136, 640]][number % 3]
    check_grouped_linear(case, with_bias=number % 8 == 2)


@pytest.mark.parametrize("kind", ["even", "empty experts", "one expert", "some dropped"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_grouped_linear_of_large_layers(kind, with_bias):
    """Large enough for libtorch's own product, which bfloat16 takes on Hopper."""
    case = Case(1)
    case.dtype, case.experts, case.widths = torch.bfloat16, 11, [1024, 1536]
    case.top_idx = torch.randint(0, 11, (2000, 3), device="cuda")
    if kind == "empty experts":
        case.top_idx = case.top_idx // 4 * 4
    elif kind == "one expert":
        case.top_idx.fill_(7)
    elif kind == "some dropped":
        case.top_idx[::3] = -1
    check_grouped_linear(case, with_bias)


@pytest.mark.parametrize("number", range(20))
def test_grouped_linear_in_tf32(number):
    """Where the user allows it: each factor is rounded to 11 bits."""
    case = Case(number, largest=1500)
    case.dtype = torch.float32
    torch.backends.cuda.matmul.allow_tf32 = True
    check_grouped_linear(case, with_bias=False, unit=2.1 * 2**-11)


def exact_moe_mlp(x, w1, b1, w2, b2, score, slot_row, top_idx, activation):
    """Every expert on every token, in float64, with autograd of plain PyTorch."""
    hidden = torch.einsum("td,ehd->teh", x, w1) + (0 if b1 is None else b1)
    functions = {
        "gelu": torch.nn.functional.gelu,
        "gelu_tanh": lambda p: torch.nn.functional.gelu(p, approximate="tanh"),
        "relu": torch.relu,
        "silu": torch.nn.functional.silu,
    }
    if activation in functions:
        hidden = functions[activation](hidden)
    else:
        gate, linear = hidden.chunk(2, -1)
        hidden = functions[{"swiglu": "silu", "geglu": "gelu", "reglu": "relu"}[activation]](gate) * linear
    out = torch.einsum("teh,edh->ted", hidden, w2) + (0 if b2 is None else b2)
    weight = torch.zeros(x.shape[0], w1.shape[0], dtype=x.dtype, device=x.device)
    kept = top_idx >= 0
    weight = weight.scatter_add(1, top_idx.clamp(min=0).long(), score * kept)
    return (out * weight[..., None]).sum(1)


def mlp_inputs(case, activation, with_bias, hidden):
    width = case.widths[0]
    rows = 2 * hidden if activation.endswith("glu") else hidden
    scale = [1, width**-0.5, 0.3, hidden**-0.5, 0.3, 1]
    shapes = [(case.tokens, width), (case.experts, rows, width), (case.experts, rows), (case.experts, width, hidden),
              (case.experts, width), (case.tokens, case.choices)]
    values = [(torch.randn(s, device="cuda", dtype=torch.float64) * f).to(case.dtype) for s, f in zip(shapes, scale)]
    inputs = [v.requires_grad_() for v in values]
    if not with_bias:
        inputs[2] = inputs[4] = None
    return inputs


@pytest.mark.parametrize("number", CASES)
def test_moe_mlp(number):
    """Up to 8 results in a row are rounded to the dtype, so the bound is on the norm: 8 roundings of terms that cancel to a
    third; where the sums run in the dtype itself, times the square root of their length."""
    case = Case(number, largest=300)
    case.experts = min(case.experts, 33)
    case.top_idx = case.top_idx.clamp(max=case.experts - 1)
    activation = ACTIVATIONS[number % 7]
    inputs = mlp_inputs(case, activation, number // 7 % 2 == 0, hidden=case.widths[1])
    x, w1, b1, w2, b2, score = inputs
    _, offsets, row_slot, slot_row = fmoe.route_plan(case.top_idx, case.experts)
    y = fmoe.moe_mlp(x, w1, b1, w2, b2, score, row_slot, slot_row, offsets, activation)
    grad = torch.randn_like(y)
    leaves = [t for t in inputs if t is not None]
    grads = torch.autograd.grad(y, leaves, grad)
    wide = [t if t is None else t.detach().double().requires_grad_() for t in inputs]
    exact = exact_moe_mlp(*wide, slot_row, case.top_idx, activation)
    exact_grads = torch.autograd.grad(exact, [t for t in wide if t is not None], grad.double(), allow_unused=True)
    longest = max(case.widths[0], case.widths[1], case.tokens * case.choices, 1)
    bound = 24 * ROUNDOFF[case.dtype] * (longest**0.5 if case.dtype in (torch.float32, torch.float64) else 1)
    with torch.no_grad():
        plain = fmoe.moe_mlp(*inputs, row_slot, slot_row, offsets, activation)
    assert torch.equal(plain, y)
    for actual, expected in zip([y.detach(), *grads], [exact.detach(), *exact_grads]):
        error, size = (actual.double() - expected).norm(), expected.norm()
        assert error <= bound * size + 1e-30, f"{error / size:.3e} over {bound:.3e}"


def test_wrong_cumulative_counts_are_flagged():
    top_idx = torch.tensor([[0, 1], [1, 1]], device="cuda")
    fmoe.take_device_errors(top_idx)
    fmoe.assign_pos(torch.tensor([1, 4], device="cuda"), top_idx)
    assert raised(top_idx) == []
    fmoe.assign_pos(torch.tensor([2, 4], device="cuda"), top_idx)
    assert raised(top_idx) == ["offsets"]


def layer(x, top_idx, score, w1, b1, w2, b2, activation):
    _, offsets, row_slot, slot_row = fmoe.route_plan(top_idx, w1.shape[0])
    fused = fmoe.moe_mlp(x, w1, b1, w2, b2, score, row_slot, slot_row, offsets, activation)
    rows = fmoe.grouped_linear(fmoe.dispatch(x, row_slot, slot_row), w1, b1, offsets)
    hidden = torch.nn.functional.silu(rows[:, : w2.shape[2]])
    return fused + fmoe.combine(fmoe.grouped_linear(hidden, w2, b2, offsets), score, slot_row)


def layer_inputs(dtype, width, hidden, tokens=700, experts=9):
    case = Case(1)
    case.dtype, case.tokens, case.choices, case.experts, case.widths = dtype, tokens, 2, experts, [width, hidden]
    x, w1, b1, w2, b2, score = mlp_inputs(case, "swiglu", True, hidden)
    return x, score, w1, b1, w2, b2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width, hidden", [(64, 96), (67, 33)])
def test_same_bits_every_time(dtype, width, hidden):
    x, score, *weights = layer_inputs(dtype, width, hidden)
    top_idx = torch.randint(-1, 9, (700, 2), device="cuda")

    def run():
        y = layer(x, top_idx, score, *weights, "swiglu")
        return [y.detach(), *torch.autograd.grad(y.square().mean(), (x, score, *weights))]

    first = run()
    assert all(t.isfinite().all() and t.any() for t in first)
    for _ in range(20):
        assert all(torch.equal(a, b) for a, b in zip(first, run()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width, hidden", [(64, 96), (67, 33), (1024, 3072)])
@pytest.mark.parametrize("tf32", [False, True])
def test_captured_graph_replayed_with_other_routing(dtype, width, hidden, tf32):
    """Anything that waited for the device would end the capture."""
    if hidden == 3072 and dtype in (torch.float64, torch.float32) and not tf32:
        pytest.skip("slow, and the same code as the smaller layers")
    torch.backends.cuda.matmul.allow_tf32 = tf32
    x, score, *weights = layer_inputs(dtype, width, hidden)
    routes = [torch.randint(-1, 9, (700, 2), device="cuda") for _ in range(3)]
    routes += [torch.full((700, 2), 4, device="cuda"), torch.full((700, 2), -1, device="cuda")]
    top_idx = routes[0].clone()

    def run():
        y = layer(x, top_idx, score, *weights, "swiglu")
        return [y.detach(), *torch.autograd.grad(y, (x, score, *weights), torch.ones_like(y))]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    for route in routes:
        top_idx.copy_(route)
        graph.replay()
        replayed = [t.clone() for t in captured]
        assert all(torch.equal(a, b) for a, b in zip(replayed, run()))


def test_values_out_of_range_are_flagged_and_act_as_minus_one():
    fmoe.take_device_errors(torch.empty(0, device="cuda"))
    good = torch.tensor([[0, 1], [1, -1], [2, 0]], device="cuda")
    plan = fmoe.route_plan(good, 3)
    _, offsets, row_slot, slot_row = plan
    x, rows, score = (torch.randn(s, device="cuda") for s in ((3, 5), (6, 5), (3, 2)))
    weight = torch.randn(3, 4, 5, device="cuda")

    def flags():
        return raised(x)

    fmoe.combine(fmoe.dispatch(x, row_slot, slot_row), score, slot_row)
    fmoe.grouped_linear(rows, weight, None, offsets)
    assert flags() == []
    for value in (3, -2, 2**40):
        bad = good.clone()
        bad[1, 1] = value
        for actual, expected in zip(fmoe.route_plan(bad, 3), plan):
            assert torch.equal(actual, expected)
        assert flags() == ["top_idx"]
        bad_slots = row_slot.clone()
        bad_slots[5] = value if value != 3 else 6
        assert torch.equal(fmoe.dispatch(x, bad_slots, slot_row), fmoe.dispatch(x, row_slot, slot_row))
        assert flags() == ["row_slot"]
        bad_rows = slot_row.clone()
        bad_rows[1, 1] = value if value != 3 else 6
        for name, arguments in (("combine", (rows, score)), ("combine_backward", (x, rows, score))):
            expected, actual = (getattr(fmoe, name)(*arguments, s) for s in (slot_row, bad_rows))
            assert all(torch.equal(a, b) for a, b in zip(actual, expected))
            assert flags() == ["slot_row"]
    for dtype in DTYPES:
        for ends in ([0, 2, 4, 70], [1, 2, 4, 5], [0, 4, 2, 5], [0, -9, 2**40, 5]):
            broken = torch.tensor(ends, device="cuda")
            y = fmoe.grouped_linear(rows.to(dtype), weight.to(dtype), None, broken)
            fmoe.grouped_linear_input_grad(y, weight.to(dtype), broken)
            fmoe.grouped_linear_weight_grad(y, rows.to(dtype), broken, True)
            assert flags() == ["offsets"]
    assert flags() == []


def test_contradictions_are_flagged():
    """Numbers in range that contradict each other. The plan of these ids has one padding row, row 5."""
    top_idx = torch.tensor([[0, 1], [1, -1], [2, 0]], device="cuda")
    _, offsets, row_slot, slot_row = fmoe.route_plan(top_idx, 3)
    x, score = torch.randn(3, 4, device="cuda"), torch.randn(3, 2, device="cuda")
    rows = torch.randn(6, 4, device="cuda")
    w1, w2 = torch.randn(3, 5, 4, device="cuda"), torch.randn(3, 4, 5, device="cuda")
    fmoe.take_device_errors(x)

    def flags(call):
        call()
        return raised(x)

    def changed(tensor, index, value):
        tensor = tensor.clone()
        tensor[index] = value
        return tensor

    def mlp(slots, ends):
        return lambda: fmoe.moe_mlp(x, w1, None, w2, None, score, slots, slot_row, ends, "gelu")

    def send(slots):
        return lambda: fmoe.dispatch(x, slots, slot_row)

    def collect(rows_of):
        return lambda: fmoe.combine_backward(x, rows, score, rows_of)

    exchanged = row_slot[[1, 0, 2, 3, 4, 5]]
    for call in (mlp(row_slot, offsets), send(row_slot), collect(slot_row)):
        assert flags(call) == []
    assert "row_slot" in flags(send(exchanged)) and "row_slot" in flags(mlp(exchanged, offsets))
    assert flags(send(changed(row_slot, 4, -1))) == ["slot_row"]
    assert flags(mlp(row_slot, changed(offsets, 3, 4))) == ["offsets"]
    assert flags(mlp(row_slot, changed(offsets, 3, 6))) == ["offsets"]
    assert flags(collect(changed(slot_row, (1, 1), 3))) == ["slot_row"]


def test_wrong_arguments_are_errors_at_once():
    good = torch.tensor([[0, 1], [1, 0]], device="cuda")
    _, offsets, row_slot, slot_row = fmoe.route_plan(good, 2)
    x = torch.randn(2, 4, device="cuda")
    with pytest.raises(ValueError, match="expected x and row_slot on the same device, got cuda:0 and cpu"):
        fmoe.dispatch(x, row_slot.cpu(), slot_row)
    with pytest.raises(ValueError, match="must agree in T"):
        fmoe.dispatch(x[:1], row_slot, slot_row)
    with pytest.raises(TypeError, match="x and weight must have the same dtype"):
        fmoe.grouped_linear(torch.randn(4, 4, device="cuda"), torch.randn(2, 4, 4, device="cuda").half(), None, offsets)
    with pytest.raises(ValueError, match="number of experts must be at most 4096 on CUDA, got 4097"):
        fmoe.route_plan(good, 4097)


def test_other_streams():
    """Work queued on a side stream runs there: it waits for what that stream waits for."""
    x, score, *weights = layer_inputs(torch.float32, 64, 96)
    top_idx = torch.randint(-1, 9, (700, 2), device="cuda")
    expected = layer(x, top_idx, score, *weights, "swiglu")
    stream = torch.cuda.Stream()
    late = torch.zeros_like(x)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        late.copy_(x.detach())
        actual = layer(late, top_idx, score, *weights, "swiglu")
    stream.synchronize()
    assert torch.equal(actual, expected)
