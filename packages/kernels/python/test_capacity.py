"""Counting and capacity against one plain Python loop each."""

import pytest
import torch

from random_routes import pick, random_route

fmoe = torch.ops.fmoe
SEEDS = range(300)


def large(seed):
    return random_route(seed, tokens=[0, 1, 2, 9, 57, 333, 1001])


@pytest.mark.parametrize("seed", SEEDS)
def test_expert_count_and_assign_pos(seed):
    generator, top_idx, experts = large(seed)
    top_idx = top_idx.to(pick(generator, [torch.int64, torch.int32]))
    lists = [[] for _ in range(experts)]
    for slot, expert in enumerate(top_idx.flatten().tolist()):
        if expert >= 0:
            lists[expert].append(slot)
    counts = fmoe.expert_count(top_idx, experts)
    assert counts.dtype == torch.int64 and counts.tolist() == [len(slots) for slots in lists]
    positions = fmoe.assign_pos(counts.cumsum(0), top_idx)
    flat = sum(lists, [])
    assert positions.tolist() == flat + [-1] * (top_idx.numel() - len(flat))
    assert torch.equal(positions, fmoe.route_plan(top_idx, experts)[2])


@pytest.mark.parametrize("seed", SEEDS)
def test_prune_gate_by_capacity(seed):
    generator, top_idx, experts = large(seed)
    budget = torch.randint(0, max(2, 2 * top_idx.numel() // experts), (experts,), generator=generator)
    left, expected = budget.tolist(), top_idx.tolist()
    for choice in range(top_idx.shape[1]):
        for token in range(top_idx.shape[0]):
            expert = expected[token][choice]
            if expert >= 0 and left[expert] > 0:
                left[expert] -= 1
            else:
                expected[token][choice] = -1
    before = budget.clone()
    pruned = fmoe.prune_gate_by_capacity(top_idx, budget)
    assert pruned.shape == top_idx.shape and pruned.tolist() == expected
    assert torch.equal(budget, before)
    kept = fmoe.expert_count(pruned, experts)
    assert torch.equal(kept, torch.minimum(fmoe.expert_count(top_idx, experts), budget))
    if top_idx.shape[1] == 1:
        assert torch.equal(fmoe.prune_gate_by_capacity(top_idx[:, 0], budget), pruned[:, 0])


@pytest.mark.parametrize("seed", SEEDS)
def test_limit_by_capacity(seed):
    generator = torch.Generator().manual_seed(seed)
    experts, world = pick(generator, [1, 2, 5, 64, 257]), pick(generator, [1, 2, 3, 8])
    counts = torch.randint(0, 50, (world * experts,), generator=generator)
    capacity = torch.randint(0, 100, (experts,), generator=generator)
    left, expected = capacity.tolist(), []
    for rank in range(world):
        for expert in range(experts):
            grant = min(left[expert], int(counts[rank * experts + expert]))
            left[expert] -= grant
            expected.append(grant)
    assert fmoe.limit_by_capacity(counts, capacity).tolist() == expected


def test_first_choices_before_second_ones():
    top_idx = torch.tensor([[1, 0], [0, 1], [0, -1]])
    pruned = fmoe.prune_gate_by_capacity(top_idx, torch.tensor([2, 1]))
    assert pruned.tolist() == [[1, -1], [0, -1], [0, -1]]


IDS = torch.tensor([[0, 2], [2, -1]])


@pytest.mark.parametrize("call, error, message", [
    (lambda: fmoe.expert_count(IDS, 2), IndexError, r"top_idx holds 2 at flat position 1.*\[0, 2\)"),
    (lambda: fmoe.expert_count(IDS - 1, 3), IndexError, r"top_idx holds -2 at flat position 3"),
    (lambda: fmoe.expert_count(IDS, 0), ValueError, r"num_experts must be positive"),
    (lambda: fmoe.expert_count(IDS.float(), 3), TypeError, r"top_idx must have dtype int64 or int32"),
    (lambda: fmoe.assign_pos(torch.tensor([1, 1, 2]), IDS), IndexError, r"expert 2 more often than cum_count says"),
    (lambda: fmoe.assign_pos(torch.tensor([1, 2, 4]), IDS), IndexError, r"expert 1 less often than cum_count says"),
    (lambda: fmoe.assign_pos(torch.tensor([1, 0, 3]), IDS), IndexError, r"cum_count holds 0 at expert 1"),
    (lambda: fmoe.assign_pos(torch.tensor([1, 1, 9]), IDS), IndexError, r"cum_count holds 9 at expert 2"),
    (lambda: fmoe.assign_pos(torch.tensor([[1, 1, 3]]), IDS), ValueError, r"cum_count must have shape \[N\]"),
    (lambda: fmoe.limit_by_capacity(torch.arange(5), torch.arange(2)), ValueError, r"\[5\] and \[2\]"),
    (lambda: fmoe.limit_by_capacity(-torch.ones(2).long(), torch.ones(2).long()), IndexError, r"expert_count holds -1"),
    (lambda: fmoe.limit_by_capacity(torch.ones(2).long(), -torch.ones(2).long()), IndexError, r"capacity holds -1"),
    (lambda: fmoe.prune_gate_by_capacity(IDS, torch.ones(2).long()), IndexError, r"top_idx holds 2 at flat position 2"),
    (lambda: fmoe.prune_gate_by_capacity(IDS, torch.tensor([1, -2, 1])), IndexError, r"budget holds -2 at expert 1"),
    (lambda: fmoe.prune_gate_by_capacity(IDS[None], torch.ones(3).long()), ValueError, r"\[T\] or \[T, K\]"),
])
def test_wrong_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name, arguments", [
    ("expert_count", (IDS, 3)),
    ("assign_pos", (torch.tensor([1, 1, 3]), IDS)),
    ("limit_by_capacity", (torch.tensor([3, 4, 5, 6]), torch.tensor([5, 5]))),
    ("prune_gate_by_capacity", (IDS, torch.tensor([1, 1, 1]))),
])
def test_registration(name, arguments):
    torch.library.opcheck(getattr(fmoe, name).default, arguments)
