"""Random routes for the tests of whole operator families: every size odd or extreme now and then."""

import torch

ROUNDOFF = {torch.float64: 2**-53, torch.float32: 2**-24, torch.float16: 2**-11, torch.bfloat16: 2**-8}
DTYPES = list(ROUNDOFF)


def pick(generator, values):
    return values[int(torch.randint(len(values), (1,), generator=generator))]


def random_route(seed, tokens=(0, 1, 3, 17, 64, 129, 333), experts=(1, 2, 3, 7, 16, 61, 257), choices=range(1, 9)):
    """(generator, top_idx [T, K], number of experts E) for one case."""
    generator = torch.Generator().manual_seed(seed)
    t, e, k = (pick(generator, list(values)) for values in (tokens, experts, choices))
    kind = pick(generator, ["even", "even", "skewed", "dropped", "one expert", "all dropped"])
    if kind == "one expert":
        top_idx = torch.full((t, k), int(torch.randint(e, (1,), generator=generator)))
    elif kind == "all dropped":
        top_idx = torch.full((t, k), -1)
    else:
        top_idx = torch.randint(e, (t, k), generator=generator)
        if kind == "skewed":
            top_idx = (top_idx.double() ** 2 / e).long()
        if kind == "dropped":
            top_idx[torch.rand(t, k, generator=generator) < 0.5] = -1
    return generator, top_idx, e


def assert_within_bound(actual, exact, bound, what):
    error = (actual.double() - exact).abs()
    # Written so that NaN fails.
    if not bool((error <= bound).all()):
        over = error - bound
        raise AssertionError(f"{what}: error {error.max():.3e}, over the bound by {over.max():.3e}")
