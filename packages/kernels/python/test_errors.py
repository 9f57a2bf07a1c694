"""Wrong arguments: the class of the error, and a message that says what is wrong."""

import pytest
import torch

fmoe = torch.ops.fmoe

top_idx = torch.tensor([[0, 1], [1, -1], [2, 0]])
COUNTS, OFFSETS, ROW_SLOT, SLOT_ROW = (
    torch.tensor([2, 2, 1]),
    torch.tensor([0, 2, 4, 5]),
    torch.tensor([0, 5, 1, 2, 4, -1]),
    torch.tensor([[0, 2], [3, -1], [4, 1]]),
)
X, ROWS, SCORE = torch.zeros(3, 4), torch.zeros(6, 4), torch.zeros(3, 2)
WEIGHT, BIAS = torch.zeros(3, 5, 4), torch.zeros(3, 5)


def changed(tensor, index, value):
    tensor = tensor.clone()
    tensor[index] = value
    return tensor


def call(name, *arguments):
    return lambda: getattr(fmoe, name)(*arguments)


META = "meta"  # a device that every machine has
CASES = [
    # route_plan
    (call("route_plan", changed(top_idx, (1, 0), 3), 3), IndexError, r"top_idx holds 3 at token 1, choice 0.*\[0, 3\)"),
    (call("route_plan", changed(top_idx, (2, 1), -2), 3), IndexError, r"top_idx holds -2 at token 2, choice 1"),
    (call("route_plan", top_idx.flatten(), 3), ValueError, r"top_idx must have shape \[T, K\], got shape \[6\]"),
    (call("route_plan", top_idx.float(), 3), TypeError, r"top_idx must have dtype int64 or int32, got float32"),
    (call("route_plan", top_idx, 0), ValueError, r"num_experts must be positive, got 0"),
    (call("route_plan", top_idx, -4), ValueError, r"num_experts must be positive, got -4"),
    (call("route_plan", torch.empty(3, 0, dtype=torch.int64), 3), ValueError, r"at least one choice"),
    # dispatch
    (call("dispatch", torch.zeros(4, 4), ROW_SLOT, SLOT_ROW), ValueError, r"must agree in T, got shapes \[4, 4\] and \[3, 2\]"),
    (call("dispatch", torch.zeros(3), ROW_SLOT, SLOT_ROW), ValueError, r"x must have shape \[T, D\], got shape \[3\]"),
    (call("dispatch", X.long(), ROW_SLOT, SLOT_ROW), TypeError, r"x must have dtype float32.*got int64"),
    (call("dispatch", X, ROW_SLOT.float(), SLOT_ROW), TypeError, r"row_slot must have dtype int64"),
    (call("dispatch", X, ROW_SLOT, SLOT_ROW.flatten()), ValueError, r"slot_row must have shape \[T, K\]"),
    (call("dispatch", X, changed(ROW_SLOT, 1, 6), SLOT_ROW), IndexError, r"row_slot holds 6 at row 1"),
    (call("dispatch", X, changed(ROW_SLOT, 1, -2), SLOT_ROW), IndexError, r"row_slot holds -2 at row 1"),
    (call("dispatch", X, ROW_SLOT, changed(SLOT_ROW, (1, 1), 6)), IndexError, r"slot_row holds 6 at flat position 3"),
    (call("dispatch", X, changed(ROW_SLOT, 5, 0), SLOT_ROW), IndexError, r"not inverse.*row 5 has slot 0.*row 0"),
    (call("dispatch", X, changed(ROW_SLOT, 4, -1), SLOT_ROW), IndexError, r"not inverse.*4 rows.*5 slots"),
    (call("dispatch", X, ROW_SLOT.to(META), SLOT_ROW), ValueError, r"expected x and row_slot on the same device, got cpu and meta"),
    (call("dispatch_backward", ROWS[:5], ROW_SLOT, SLOT_ROW), ValueError, r"must agree in R"),
    # grouped_linear
    (call("grouped_linear", ROWS[:, :3], WEIGHT, BIAS, OFFSETS), ValueError, r"must agree in in, got shapes \[6, 3\] and \[3, 5, 4\]"),
    (call("grouped_linear", ROWS, WEIGHT[0], BIAS, OFFSETS), ValueError, r"weight must have shape \[E, out, in\]"),
    (call("grouped_linear", ROWS, WEIGHT, BIAS[:2], OFFSETS), ValueError, r"weight .* bias .* must agree in E"),
    (call("grouped_linear", ROWS, WEIGHT, BIAS[:, :2], OFFSETS), ValueError, r"must agree in out"),
    (call("grouped_linear", ROWS, WEIGHT, BIAS[0], OFFSETS), ValueError, r"bias must have shape \[E, out\]"),
    (call("grouped_linear", ROWS, WEIGHT.double(), BIAS, OFFSETS), TypeError, r"x and weight must have the same dtype, got float32 and float64"),
    (call("grouped_linear", ROWS, WEIGHT, BIAS.half(), OFFSETS), TypeError, r"weight and bias must have the same dtype"),
    (call("grouped_linear", ROWS.int(), WEIGHT, BIAS, OFFSETS), TypeError, r"x must have dtype float32"),
    (call("grouped_linear", ROWS, WEIGHT, BIAS, OFFSETS[:3]), ValueError, r"offsets must hold one number more"),
    (call("grouped_linear", ROWS, WEIGHT, BIAS, OFFSETS[:1]), ValueError, r"offsets must have shape \[E \+ 1\]"),
    (call("grouped_linear", ROWS, WEIGHT, BIAS, OFFSETS.float()), TypeError, r"offsets must have dtype int64"),
    (call("grouped_linear", ROWS, WEIGHT, BIAS, torch.tensor([1, 2, 4, 5])), IndexError, r"begin with 0, got 1"),
    (call("grouped_linear", ROWS, WEIGHT, BIAS, torch.tensor([0, 4, 2, 5])), IndexError, r"must not decrease, got 4 then 2 at position 2"),
    (call("grouped_linear", ROWS, WEIGHT, BIAS, torch.tensor([0, 2, 4, 7])), IndexError, r"end at row 7.*only 6 rows"),
    (call("grouped_linear_input_grad", ROWS, WEIGHT, OFFSETS), ValueError, r"must agree in out"),
    (call("grouped_linear_weight_grad", ROWS, ROWS[:5], OFFSETS, True), ValueError, r"must agree in R"),
    # combine
    (call("combine", ROWS, SCORE[:2], SLOT_ROW), ValueError, r"must agree in T"),
    (call("combine", ROWS, SCORE[:, :1], SLOT_ROW), ValueError, r"must agree in K"),
    (call("combine", ROWS[0], SCORE, SLOT_ROW), ValueError, r"rows must have shape \[R, D\]"),
    (call("combine", ROWS.long(), SCORE, SLOT_ROW), TypeError, r"rows must have dtype float32"),
    (call("combine", ROWS, SCORE.long(), SLOT_ROW), TypeError, r"score must have dtype float32"),
    (call("combine", ROWS, SCORE, SLOT_ROW.bool()), TypeError, r"slot_row must have dtype int64"),
    (call("combine", ROWS, SCORE, changed(SLOT_ROW, (0, 1), 6)), IndexError, r"slot_row holds 6 at flat position 1.*\[0, 6\)"),
    (call("combine", ROWS, SCORE, changed(SLOT_ROW, (0, 1), -3)), IndexError, r"slot_row holds -3 at flat position 1"),
    (call("combine", ROWS, SCORE, changed(SLOT_ROW, (1, 1), 2)), IndexError, r"names row 2 more than once"),
    (call("combine", ROWS, SCORE.to(META), SLOT_ROW), ValueError, r"expected rows and score on the same device"),
    (call("combine_backward", torch.zeros(3, 5), ROWS, SCORE, SLOT_ROW), ValueError, r"must agree in D"),
]


def test_the_unchanged_arguments_are_right():
    for actual, expected in zip(fmoe.route_plan(top_idx, 3), (COUNTS, OFFSETS, ROW_SLOT, SLOT_ROW)):
        assert torch.equal(actual, expected)
    rows = fmoe.dispatch(X, ROW_SLOT, SLOT_ROW)
    assert fmoe.grouped_linear(rows, WEIGHT, BIAS, OFFSETS).shape == (6, 5)
    assert fmoe.combine(rows, SCORE, SLOT_ROW).shape == (3, 4)


@pytest.mark.parametrize("function, error, message", CASES)
def test_wrong_argument(function, error, message):
    with pytest.raises(error, match=message):
        function()


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_inside_a_worker_thread_reaches_the_caller(threads):
    torch.set_num_threads(threads)
    large = torch.zeros(60_000, 2, dtype=torch.int64)
    large[-1, -1] = 9
    with pytest.raises(IndexError, match="top_idx holds 9 at token 59999, choice 1"):
        fmoe.route_plan(large, 4)


def test_a_sparse_argument_is_not_implemented():
    with pytest.raises(NotImplementedError, match="fmoe::dispatch"):
        fmoe.dispatch(X.to_sparse(), ROW_SLOT, SLOT_ROW)
