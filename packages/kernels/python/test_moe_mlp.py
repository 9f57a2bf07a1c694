"""The fused expert MLP against a loop over experts in float64, with an error bound that follows the arithmetic."""

import pytest
import torch

from random_routes import DTYPES, ROUNDOFF, assert_within_bound, pick, random_route

fmoe = torch.ops.fmoe
functional = torch.nn.functional

# name: (function in float64, is gated, bound of |f'|, bound of |f''|; None: f' jumps at 0)
ACTIVATIONS = {
    "gelu": (functional.gelu, False, 1.13, 0.8),
    "gelu_tanh": (lambda p: functional.gelu(p, approximate="tanh"), False, 1.13, 0.81),
    "relu": (functional.relu, False, 1.0, None),
    "silu": (functional.silu, False, 1.1, 0.5),
    "swiglu": (functional.silu, True, 1.1, 0.5),
    "geglu": (functional.gelu, True, 1.13, 0.8),
    "reglu": (functional.relu, True, 1.0, None),
}
# Relative error of a computed activation or slope, in roundings: the exponential, one division, the products around them.
FUNCTION_ROUNDINGS = 16


def value_and_slope(function, p):
    with torch.enable_grad():
        p = p.detach().requires_grad_()
        y = function(p)
        (slope,) = torch.autograd.grad(y.sum(), p)
    return y.detach(), slope


def expected(activation, x, w1, b1, w2, b2, score, top_idx, grad, dtype):
    """Exact y and gradients with the bound of each one's error, all from the definition, expert by expert.

    u bounds the rounding of the accumulation type, `rounding` that of the stored dtype. A dot product of n terms is off by
    at most (n + 2) u Σ|terms|; an error e of p moves f(p) by at most max|f'| e and f'(p) by max|f''| e.
    """
    function, gated, steepest, bent = ACTIVATIONS[activation]
    rounding, score_rounding = ROUNDOFF[dtype], ROUNDOFF[score.dtype]
    u = min(rounding, 2**-24)
    x, w1, w2, score, grad = (t.double() for t in (x, w1, w2, score, grad))
    b1 = torch.zeros(w1.shape[:2]).double() if b1 is None else b1.double()
    b2 = torch.zeros(w2.shape[:2]).double() if b2 is None else b2.double()
    # A score of another dtype is rounded to the accumulation type once.
    (tokens, width), choices, hidden = x.shape, top_idx.shape[1], w2.shape[2]
    names = ["y", "x", "w1", "b1", "w2", "b2", "score"]
    exact = dict(zip(names, [torch.zeros_like(t) for t in (x, x, w1, b1, w2, b2, score)]))
    error = {name: torch.zeros_like(t) for name, t in exact.items()}
    magnitude = {"y": torch.zeros_like(x), "x": torch.zeros_like(x)}
    for e in range(w1.shape[0]):
        token, choice = torch.where(top_idx == e)
        if token.numel() == 0:
            continue
        rows, s, g = x[token], score[token, choice][:, None], grad[token]
        n = token.numel()
        p = rows @ w1[e].T + b1[e]
        p_error = u * (width + 3) * (rows.abs() @ w1[e].abs().T + b1[e].abs())
        # The backward reads the pre-activation as it was stored.
        stored_error = p_error + (rounding if rounding > u else 0) * p.abs() + (2**-25 if dtype == torch.float16 else 0)
        gate, linear = (p[:, :hidden], p[:, hidden:]) if gated else (p, torch.ones(()).double())
        f, slope = value_and_slope(function, gate)
        a = f * linear

        def activation_error(of_p):
            of_f = steepest * of_p[:, :hidden] + FUNCTION_ROUNDINGS * u * (f.abs() + gate.abs() * 1e-2)
            return of_f * linear.abs() + (f.abs() + of_f) * of_p[:, hidden:] + u * a.abs() if gated else of_f

        a_error, a_stored = activation_error(p_error), activation_error(stored_error)
        out = a @ w2[e].T + b2[e]
        size = a.abs() @ w2[e].abs().T + b2[e].abs()
        out_error = a_error @ w2[e].abs().T + u * (hidden + 3) * size
        exact["y"].index_add_(0, token, s * out)
        error["y"].index_add_(0, token, s.abs() * out_error)
        magnitude["y"].index_add_(0, token, s.abs() * (size + out_error))

        back = g @ w2[e]
        back_size = g.abs() @ w2[e].abs()
        back_error = u * (width + 2) * back_size
        exact["score"][token, choice] = (back * a).sum(1) + g @ b2[e]
        error["score"][token, choice] = (
            back_error * a.abs() + (back.abs() + back_error) * a_stored + u * (hidden + 3) * back_size * a.abs()
        ).sum(1) + u * (width + 3) * (g.abs() @ b2[e].abs())

        if bent is None:
            slope_error = (gate.abs() <= stored_error[:, :hidden]).double()
        else:
            slope_error = bent * stored_error[:, :hidden] + FUNCTION_ROUNDINGS * u * (1 + gate.abs())
        scaled, scaled_error = s * back, s.abs() * (back_error + 2 * u * back_size)
        d_gate = scaled * slope * linear
        d_gate_error = (
            scaled_error * (slope.abs() + slope_error) * linear.abs() + scaled.abs() * slope_error * linear.abs()
            + 3 * u * d_gate.abs()
        )
        d, d_error = d_gate, d_gate_error
        if gated:
            d_gate_error = d_gate_error + (scaled.abs() + scaled_error) * (slope.abs() + slope_error) * stored_error[:, hidden:]
            f_error = steepest * stored_error[:, :hidden] + FUNCTION_ROUNDINGS * u * (f.abs() + gate.abs() * 1e-2)
            d_linear_error = scaled_error * (f.abs() + f_error) + scaled.abs() * f_error + 2 * u * (scaled * f).abs()
            d, d_error = torch.cat([d_gate, scaled * f], 1), torch.cat([d_gate_error, d_linear_error], 1)
        d_size = d.abs() + d_error
        exact["x"].index_add_(0, token, d @ w1[e])
        error["x"].index_add_(0, token, (d_error + u * (d.shape[1] + 2) * d_size) @ w1[e].abs())
        magnitude["x"].index_add_(0, token, d_size @ w1[e].abs())
        exact["w1"][e], exact["b1"][e] = d.T @ rows, d.sum(0)
        error["w1"][e] = (d_error + u * (n + 2) * d_size).T @ rows.abs()
        error["b1"][e] = (d_error + u * (n + 2) * d_size).sum(0)
        sg = s * g
        exact["w2"][e], exact["b2"][e] = sg.T @ a, sg.sum(0)
        error["w2"][e] = sg.abs().T @ (a_stored + u * (n + 4) * (a.abs() + a_stored))
        error["b2"][e] = (u * (n + 3) * sg.abs()).sum(0)
    for name in ("y", "x"):
        error[name] += u * (choices + 2) * magnitude[name]
    for name in names:
        last = score_rounding if name == "score" else rounding
        tiny = 2**-25 if (score.dtype if name == "score" else dtype) == torch.float16 else 0
        error[name] = 1.01 * error[name] + last * (exact[name].abs() + error[name]) + tiny
    return exact, error


def random_case(seed, dtype, **sizes):
    generator, top_idx, experts = random_route(seed, **sizes)
    tokens, choices = top_idx.shape
    width = pick(generator, [1, 2, 5, 8, 13, 33, 50])
    hidden = pick(generator, [1, 3, 7, 16, 21, 45])
    activation = pick(generator, list(ACTIVATIONS))
    gated = ACTIVATIONS[activation][1]

    def draw(*shape, scale=1.0, of=dtype):
        return (torch.randn(*shape, generator=generator) * scale).to(of).requires_grad_()

    biased = pick(generator, [True, False])
    pre_width = hidden * (2 if gated else 1)
    arguments = [
        draw(tokens, width),
        draw(experts, pre_width, width, scale=width**-0.5),
        draw(experts, pre_width) if biased else None,
        draw(experts, width, hidden, scale=hidden**-0.5),
        draw(experts, width) if biased else None,
        draw(tokens, choices, of=pick(generator, [dtype, torch.float32])),
    ]
    return arguments, top_idx, experts, activation, draw(tokens, width).detach()


def run(arguments, plan, activation, grad):
    _, offsets, row_slot, slot_row = plan
    y = fmoe.moe_mlp(*arguments, row_slot, slot_row, offsets, activation)
    wanted = [t for t in arguments if t is not None]
    return y, dict(zip([i for i, t in enumerate(arguments) if t is not None], torch.autograd.grad(y, wanted, grad)))


def check(arguments, top_idx, experts, activation, grad):
    x, w1, b1, w2, b2, score = arguments
    dtype = x.dtype
    plan = fmoe.route_plan(top_idx, experts)
    y, grads = run(arguments, plan, activation, grad)
    detached = [None if t is None else t.detach() for t in arguments]
    exact, bound = expected(activation, *detached, top_idx, grad, dtype)
    assert y.dtype == dtype
    assert_within_bound(y.detach(), exact["y"], bound["y"], f"{activation} {dtype} y")
    for i, name in enumerate(["x", "w1", "b1", "w2", "b2", "score"]):
        if i in grads:
            assert grads[i].dtype == arguments[i].dtype
            assert_within_bound(grads[i], exact[name], bound[name], f"{activation} {dtype} {name}")
    _, offsets, row_slot, slot_row = plan
    inference = fmoe.moe_mlp(*detached, row_slot, slot_row, offsets, activation)
    assert torch.equal(inference, y) and not inference.requires_grad


@pytest.mark.parametrize("seed", range(80))
@pytest.mark.parametrize("dtype", DTYPES)
def test_random_cases(seed, dtype):
    torch.set_num_threads(1)  # too small to share out
    check(*random_case(1000 * DTYPES.index(dtype) + seed, dtype))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_long_and_shared_out(activation, dtype):
    """Enough rows for several blocks an expert and several threads."""
    arguments, top_idx, experts, _, grad = random_case(
        7 + list(ACTIVATIONS).index(activation), dtype, tokens=[2047, 4999], experts=[3, 5], choices=[1, 2])
    arguments[1] = arguments[1].detach()
    hidden = arguments[3].shape[2]
    rows = hidden * (2 if ACTIVATIONS[activation][1] else 1)
    arguments[1] = torch.randn(experts, rows, arguments[0].shape[1]).to(dtype).requires_grad_()
    arguments[2] = torch.randn(experts, rows).to(dtype).requires_grad_()
    check(arguments, top_idx, experts, activation, grad)


def test_gelu_keeps_its_relative_accuracy_in_the_tail():
    x = torch.linspace(-9, 9, 4001)
    eye = torch.ones(1, 1, 1)
    plan = fmoe.route_plan(torch.zeros(x.numel(), 1, dtype=torch.int64), 1)
    y = fmoe.moe_mlp(x[:, None], eye, None, eye, None, torch.ones(x.numel(), 1), plan[2], plan[3], plan[1], "gelu")
    exact = x.double() * 0.5 * torch.special.erfc(-x.double() / 2**0.5)
    # exp(-x²/2) has the relative error of its rounded argument.
    assert ((y[:, 0].double() - exact).abs() <= 2**-24 * (8 + x.double() ** 2) * exact.abs()).all()


def small(activation, biased=True):
    top_idx = torch.tensor([[0, 2], [2, -1], [-1, -1], [2, 0]])
    width = 8 if ACTIVATIONS[activation][1] else 4
    leaf = lambda *shape: torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    arguments = [leaf(4, 3), leaf(3, width, 3), leaf(3, width) if biased else None, leaf(3, 3, 4),
                 leaf(3, 3) if biased else None, leaf(4, 2)]
    return arguments, fmoe.route_plan(top_idx, 3)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("biased", [True, False])
def test_gradcheck(activation, biased):
    arguments, (_, offsets, row_slot, slot_row) = small(activation, biased)
    given = [i for i, t in enumerate(arguments) if t is not None]

    def function(*inputs):
        full = [None] * 6
        for i, value in zip(given, inputs):
            full[i] = value
        return fmoe.moe_mlp(*full, row_slot, slot_row, offsets, activation)

    assert torch.autograd.gradcheck(function, [arguments[i] for i in given])


@pytest.mark.parametrize("wanted", range(6))
def test_one_gradient_alone_has_the_bits_of_all(wanted):
    arguments, plan = small("swiglu")
    grad = torch.randn(4, 3, dtype=torch.float64)
    _, full = run(arguments, plan, "swiglu", grad)
    alone = [t.detach().requires_grad_(i == wanted) for i, t in enumerate(arguments)]
    _, offsets, row_slot, slot_row = plan
    fmoe.moe_mlp(*alone, row_slot, slot_row, offsets, "swiglu").backward(grad)
    assert torch.equal(alone[wanted].grad, full[wanted])
    assert all(t.grad is None for i, t in enumerate(alone) if i != wanted)


def test_second_derivative_is_refused():
    arguments, (_, offsets, row_slot, slot_row) = small("gelu")
    y = fmoe.moe_mlp(*arguments, row_slot, slot_row, offsets, "gelu")
    (grad,) = torch.autograd.grad(y.square().sum(), arguments[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="moe_mlp has no second derivative"):
        grad.sum().backward()


def test_saves_only_input_pre_activation_and_scores():
    tokens, width, hidden, experts, choices = 64, 16, 32, 4, 2
    top_idx = torch.rand(tokens, experts).argsort(1)[:, :choices]
    _, offsets, row_slot, slot_row = fmoe.route_plan(top_idx, experts)
    w1, w2 = torch.randn(experts, hidden, width), torch.randn(experts, width, hidden)
    x, score = torch.randn(tokens, width, requires_grad=True), torch.rand(tokens, choices, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        fmoe.moe_mlp(x, w1, None, w2, None, score, row_slot, slot_row, offsets, "gelu")
    weights = {w1.data_ptr(), w2.data_ptr()}
    floats = sum(t.numel() for t in saved if t.is_floating_point() and t.data_ptr() not in weights)
    assert floats == tokens * width + tokens * choices * hidden + tokens * choices


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_twenty_times(dtype):
    arguments, top_idx, experts, activation, grad = random_case(
        5, dtype, tokens=[1500], experts=[5], choices=[2])
    plan = fmoe.route_plan(top_idx, experts)
    first_y, first = run(arguments, plan, activation, grad)
    assert first_y.any()
    for _ in range(19):
        y, grads = run(arguments, plan, activation, grad)
        assert torch.equal(y, first_y) and all(torch.equal(grads[i], first[i]) for i in first)


def test_strided_arguments():
    arguments, plan = small("geglu")
    strided = [t.detach().mT.contiguous().mT.requires_grad_() for t in arguments]
    grad = torch.randn(3, 4, dtype=torch.float64).t()
    for a, b in zip(run(arguments, plan, "geglu", grad)[1].values(), run(strided, plan, "geglu", grad)[1].values()):
        torch.testing.assert_close(a, b)


def test_registration():
    arguments, (_, offsets, row_slot, slot_row) = small("silu")
    torch.library.opcheck(fmoe.moe_mlp.default, (*arguments, row_slot, slot_row, offsets, "silu"))


def test_autocast_keeps_the_scores():
    arguments, (_, offsets, row_slot, slot_row) = small("gelu")
    arguments = [t.detach().float().requires_grad_() for t in arguments]
    with torch.autocast("cpu", torch.bfloat16):
        y = fmoe.moe_mlp(*arguments, row_slot, slot_row, offsets, "gelu")
    low = [t.detach().bfloat16() for t in arguments[:5]]
    assert torch.equal(y, fmoe.moe_mlp(*low, arguments[5].detach(), row_slot, slot_row, offsets, "gelu"))
    y.float().sum().backward()
    assert all(t.grad.dtype == torch.float32 for t in arguments)


def changed(tensor, index, value):
    result = tensor.detach().clone()
    result[index] = value
    return result


WRONG = {
    "x of another width": (0, lambda t: t[:, :2], ValueError, r"x \[T, D\] and w1 \[E, H, D\] must agree in D"),
    "x of another dtype": (0, lambda t: t.float(), TypeError, r"x and w1 must have the same dtype"),
    "integers": (0, lambda t: t.long(), TypeError, r"x must have dtype"),
    "w1 of other rows": (1, lambda t: t[:, :3], ValueError, r"must agree in H for activation gelu"),
    "w2 of other experts": (3, lambda t: t[:2], ValueError, r"offsets must hold one number more than weight|w2"),
    "b1 of another width": (2, lambda t: t[:, :3], ValueError, r"w1 .* b1 .* must agree in H"),
    "b2 as a vector": (4, lambda t: t[0], ValueError, r"b2 must have shape \[E, D\]"),
    "score of other choices": (5, lambda t: t[:, :1], ValueError, r"must agree in K"),
    "row_slot out of range": (6, lambda t: changed(t, 0, 8), IndexError, r"row_slot holds 8 at row 0"),
    "slot_row not inverse": (7, lambda t: changed(t, (0, 0), 1), IndexError, r"not inverse"),
    "a row without a slot": (8, lambda t: changed(t, 3, 6), IndexError, r"offsets end at row 6"),
    "a slot past the rows": (8, lambda t: changed(t, 3, 4), IndexError, r"offsets end at row 4"),
    "an unknown activation": (9, lambda t: "mish", ValueError, r"activation must be one of gelu.*got 'mish'"),
    "a gated activation": (9, lambda t: "swiglu", ValueError, r"w1 \[E, 2H, D\] and w2 \[E, D, H\] must agree in H"),
    "another device": (5, lambda t: t.to("meta"), ValueError, r"x and score on the same device"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_argument(name):
    position, change, error, message = WRONG[name]
    arguments, (_, offsets, row_slot, slot_row) = small("gelu")
    call = [*arguments, row_slot, slot_row, offsets, "gelu"]
    call[position] = change(call[position])
    with pytest.raises(error, match=message):
        fmoe.moe_mlp(*call)
