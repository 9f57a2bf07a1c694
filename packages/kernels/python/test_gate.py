"""Top-k gating against sorting and softmax in float64, token by token choices from a stable sort."""

import pytest
import torch

from random_routes import DTYPES, ROUNDOFF, assert_within_bound, pick

fmoe = torch.ops.fmoe
FUNCTIONS = ["softmax_chosen", "softmax", "sigmoid"]


def scores_of(logits, top_idx, function, normalize):
    """Differentiable scores from the definition."""
    chosen = logits.gather(1, top_idx)
    if function == "softmax_chosen":
        return chosen.softmax(1)
    score = logits.softmax(1).gather(1, top_idx) if function == "softmax" else chosen.sigmoid()
    return score / score.sum(1, keepdim=True) if normalize else score


def random_case(seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    tokens = pick(generator, [0, 1, 5, 33, 257, 1001, 4999])
    experts = pick(generator, [1, 2, 3, 8, 31, 64, 257])
    k = min(experts, pick(generator, list(range(1, 9))))
    scale = pick(generator, [0.1, 1.0, 8.0])
    logits = torch.randn(tokens, experts, generator=generator) * scale
    if pick(generator, [True, False]):
        logits = (logits * 2).round() / 2  # many ties
    return generator, logits.to(dtype).requires_grad_(), k


@pytest.mark.parametrize("seed", range(80))
@pytest.mark.parametrize("dtype", DTYPES)
def test_random_cases(seed, dtype):
    generator, logits, k = random_case(1000 * DTYPES.index(dtype) + seed, dtype)
    function, normalize = pick(generator, FUNCTIONS), pick(generator, [True, False])
    top_idx, top_score = fmoe.topk_gate(logits, None, k, function, normalize)
    # A stable sort puts the lower expert id first among equals.
    order = logits.detach().double().sort(dim=1, descending=True, stable=True).indices[:, :k]
    assert torch.equal(top_idx, order)
    assert top_idx.dtype == torch.int64
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert top_score.dtype == wide

    grad = torch.randn(top_score.shape, generator=generator).to(wide)
    (actual,) = torch.autograd.grad(top_score, logits, grad)
    exact_logits = logits.detach().double().requires_grad_()
    exact = scores_of(exact_logits, order, function, normalize)
    (exact_grad,) = torch.autograd.grad(exact, exact_logits, grad.double(), allow_unused=True)
    u = ROUNDOFF[wide]
    # A rounded difference of logits up to 2 max|x| moves the exponential by as much; then sums of N or K terms.
    largest = float(logits.detach().abs().max()) if logits.numel() else 0.0
    relative = u * (8 + 2 * largest + logits.shape[1])
    assert_within_bound(top_score.detach(), exact.detach(), 2 * relative * exact.detach(), "score")
    bound = 4 * relative * grad.abs().double().sum(1, keepdim=True)
    assert actual.dtype == dtype
    rounding = ROUNDOFF[dtype] * exact_grad.abs() + (2**-25 if dtype == torch.float16 else 0)
    assert_within_bound(actual, exact_grad, bound + rounding, "gradient")


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("function", FUNCTIONS)
def test_selection_bias_chooses_but_does_not_score(seed, function):
    generator, logits, k = random_case(seed, torch.float64)
    experts = logits.shape[1]
    bias = torch.randn(experts, generator=generator, dtype=torch.float64, requires_grad=True)
    top_idx, top_score = fmoe.topk_gate(logits, bias, k, function, True)
    plain = logits.detach()
    key = {"softmax_chosen": plain, "softmax": plain.softmax(1), "sigmoid": plain.sigmoid()}[function] + bias.detach()
    # The two exponentials may differ in the last bit, so equal keys up to rounding may swap.
    best = key.sort(dim=1, descending=True).values[:, :k]
    torch.testing.assert_close(key.gather(1, top_idx), best, rtol=0, atol=1e-14)
    assert all(len(set(row)) == k for row in top_idx.tolist())
    torch.testing.assert_close(top_score.detach(), scores_of(plain, top_idx, function, True))
    if logits.numel():
        top_score.sum().backward()
        assert bias.grad is None and logits.grad is not None


def test_ties_go_to_the_lower_expert():
    logits = torch.tensor([[1.0, 3.0, 3.0, 1.0, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert fmoe.topk_gate(logits, None, 4, "softmax", False)[0].tolist() == [[1, 2, 4, 0], [0, 1, 2, 3]]
    assert fmoe.topk_gate(logits, torch.zeros(5), 4, "sigmoid", False)[0].tolist() == [[1, 2, 4, 0], [0, 1, 2, 3]]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("normalize", [True, False])
def test_masked_experts_score_zero(function, normalize):
    masked = float("-inf")
    logits = torch.tensor([[masked, 1.0, masked], [masked, masked, masked]], requires_grad=True)
    top_idx, top_score = fmoe.topk_gate(logits, None, 2, function, normalize)
    assert top_idx.tolist() == [[1, 0], [0, 1]]
    assert top_score[0, 0] > 0 and top_score[0, 1] == 0 and (top_score[1] == 0).all()
    (grad,) = torch.autograd.grad(top_score.sum(), logits)
    assert grad.isfinite().all()


def test_normalised_sigmoids_do_not_underflow():
    logits = torch.tensor([[-120.0, -121.0, -300.0]], dtype=torch.float32)
    score = fmoe.topk_gate(logits, None, 2, "sigmoid", True)[1]
    torch.testing.assert_close(score, torch.tensor([[0.0, -1.0]]).softmax(1))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("bias", [None, torch.tensor([0.3, -0.2, 0.0, 0.1, 0.5], dtype=torch.float64)])
def test_gradcheck(function, normalize, bias):
    logits = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: fmoe.topk_gate(x, bias, 3, function, normalize)[1], logits)


def test_second_derivative_is_refused():
    logits = torch.randn(3, 4, requires_grad=True)
    score = fmoe.topk_gate(logits, None, 2, "softmax", False)[1]
    (grad,) = torch.autograd.grad(score.square().sum(), logits, create_graph=True)
    with pytest.raises(NotImplementedError, match="topk_gate has no second derivative"):
        grad.sum().backward()


def test_same_bits_twenty_times_on_any_number_of_threads():
    logits = torch.randn(3001, 65, requires_grad=True)
    grad = torch.randn(3001, 6)

    def run():
        top_idx, score = fmoe.topk_gate(logits, None, 6, "softmax", False)
        return top_idx, score, torch.autograd.grad(score, logits, grad)[0]

    first = run()
    for repeat in range(19):
        torch.set_num_threads(1 + repeat % 3)
        assert all(torch.equal(a, b) for a, b in zip(first, run()))


def test_registration():
    logits = torch.randn(4, 6, requires_grad=True)
    arguments = (logits, torch.randn(6), 2, "sigmoid", True)
    # The checker's ahead-of-time test adds up all outputs from the first one on, which is an integer here.
    torch.library.opcheck(
        fmoe.topk_gate.default, arguments,
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"))
    score = lambda logits: fmoe.topk_gate(logits, *arguments[1:])[1].square().sum()
    compiled = torch.compile(score, backend="aot_eager", fullgraph=True, dynamic=True)
    grads = [torch.autograd.grad(function(logits), logits)[0] for function in (score, compiled)]
    assert torch.equal(*grads)


def gate(logits, bias=None, k=2, function="softmax", normalize=False):
    return lambda: fmoe.topk_gate(logits, bias, k, function, normalize)


def with_value(value):
    logits = torch.zeros(3, 4)
    logits[1, 2] = value
    return logits


@pytest.mark.parametrize("call, error, message", [
    (gate(with_value(float("nan"))), ValueError, r"logits hold nan at token 1, expert 2"),
    (gate(with_value(float("inf"))), ValueError, r"logits hold inf at token 1, expert 2"),
    (gate(with_value(0), torch.tensor([0, 0, float("nan"), 0])), ValueError, r"selection_bias holds nan at expert 2"),
    (gate(with_value(0), torch.zeros(3)), ValueError, r"logits \[T, N\] and selection_bias \[N\] must agree in N"),
    (gate(with_value(0), torch.zeros(4).long()), TypeError, r"selection_bias must have dtype"),
    (gate(with_value(0), k=5), ValueError, r"k must be at least 1 and at most .* got 5 for logits of shape \[3, 4\]"),
    (gate(with_value(0), k=0), ValueError, r"k must be at least 1"),
    (gate(with_value(0), function="tanh"), ValueError, r"score_function must be one of softmax_chosen.*got 'tanh'"),
    (gate(torch.zeros(4)), ValueError, r"logits must have shape \[T, N\], got shape \[4\]"),
    (gate(torch.zeros(3, 4).long()), TypeError, r"logits must have dtype"),
])
def test_wrong_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
