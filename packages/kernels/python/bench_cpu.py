"""Time of the operators against the same work in plain PyTorch, on this machine's CPU.

    python bench_cpu.py [--threads 2] [--library PATH] [--json PATH]

Variants run interleaved, so that other load hits all alike; the figure is the median. R rows, D width, H hidden,
E experts, T tokens, K choices a token.
"""

import argparse
import json
import statistics
import time

import torch

from moe_mlp import LIBRARY

fmoe = torch.ops.fmoe


def interleaved(variants, repeats):
    for run in variants.values():
        run()
    times = {name: [] for name in variants}
    for _ in range(repeats):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) * 1e6 for name, values in times.items()}


def route(tokens, choices, experts, skewed):
    weights = torch.arange(1.0, experts + 1) if skewed else torch.ones(experts)
    top_idx = torch.multinomial(weights.expand(tokens, experts), choices)
    return top_idx, fmoe.route_plan(top_idx, experts)


def loop_linear(x, weight, bias, sizes):
    parts = zip(x.split(sizes), weight.unbind(), bias.unbind())
    return torch.cat([torch.nn.functional.linear(rows, w, b) for rows, w, b in parts])


def linear_cases(dtype, rows, width, hidden, experts, skewed):
    _, (counts, offsets, _, _) = route(rows // 2, 2, experts, skewed)
    sizes = counts.tolist()
    x = torch.randn(rows, width, dtype=dtype, requires_grad=True)
    weight = (torch.randn(experts, hidden, width, dtype=dtype) / width**0.5).requires_grad_()
    bias = torch.zeros(experts, hidden, dtype=dtype, requires_grad=True)
    grad = torch.randn(rows, hidden, dtype=dtype)

    def both(function):
        return lambda: torch.autograd.grad(function(), (x, weight, bias), grad)

    def ours():
        return fmoe.grouped_linear(x, weight, bias, offsets)

    def loop():
        return loop_linear(x, weight, bias, sizes)

    variants = {"fmoe forward": ours, "loop forward": loop, "fmoe both": both(ours), "loop both": both(loop)}
    if dtype != torch.float64:
        ends = offsets[1:].int()
        owner = torch.repeat_interleave(torch.arange(experts), counts)

        def grouped_mm():
            return torch._grouped_mm(x, weight.transpose(1, 2), offs=ends) + bias[owner]

        variants |= {"grouped_mm forward": grouped_mm, "grouped_mm both": both(grouped_mm)}
    return variants


def row_cases(dtype, tokens, choices, width, experts):
    top_idx, (_, _, row_slot, slot_row) = route(tokens, choices, experts, False)
    x = torch.randn(tokens, width, dtype=dtype, requires_grad=True)
    score = torch.rand(tokens, choices, dtype=dtype, requires_grad=True)
    rows = torch.randn(tokens * choices, width, dtype=dtype, requires_grad=True)
    grad_rows, grad = torch.randn_like(rows), torch.randn_like(x)
    row_token, flat = row_slot // choices, slot_row.flatten()

    def plan():
        order = top_idx.flatten().argsort(stable=True)
        counts = torch.bincount(top_idx.flatten(), minlength=experts)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(order.numel())
        return counts, counts.cumsum(0), inverse

    def ours():
        return fmoe.combine(rows, score, slot_row)

    def theirs():
        return torch.bmm(score.unsqueeze(1), rows[flat].view(tokens, choices, width)).squeeze(1)

    return {
        "fmoe plan": lambda: fmoe.route_plan(top_idx, experts),
        "torch plan": plan,
        "fmoe dispatch both": lambda: torch.autograd.grad(fmoe.dispatch(x, row_slot, slot_row), x, grad_rows),
        "torch dispatch both": lambda: torch.autograd.grad(x[row_token], x, grad_rows),
        "fmoe combine": ours,
        "torch combine": theirs,
        "fmoe combine both": lambda: torch.autograd.grad(ours(), (rows, score), grad),
        "torch combine both": lambda: torch.autograd.grad(theirs(), (rows, score), grad),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--library", default=LIBRARY)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.ops.load_library(options.library)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    results = {"torch": torch.__version__, "threads": options.threads, "cases": []}
    linear = [(torch.float32, 2048, 128, 256, 8, False), (torch.float32, 2048, 128, 256, 8, True),
              (torch.float32, 8192, 512, 2048, 8, False), (torch.float32, 2048, 128, 256, 64, False),
              (torch.bfloat16, 2048, 128, 256, 8, False), (torch.float16, 2048, 128, 256, 8, False)]
    for dtype, rows, width, hidden, experts, skewed in linear:
        work = 2 * rows * width * hidden
        repeats = options.repeats if work < 1e9 else max(3, options.repeats // 8)
        times = interleaved(linear_cases(dtype, rows, width, hidden, experts, skewed), repeats)
        case = {"case": f"grouped linear {str(dtype)[6:]} R{rows} D{width} H{hidden} E{experts}{' skewed' * skewed}",
                "microseconds": times,
                "gflops": {n: work * (3 if "both" in n else 1) / t / 1e3 for n, t in times.items()}}
        results["cases"].append(case)
        print(case["case"])
        for name, t in times.items():
            print(f"    {name:20s} {t:10.0f} us {case['gflops'][name]:7.0f} GFLOP/s")
    for dtype, tokens, choices, width, experts in [(torch.float32, 1024, 2, 128, 8), (torch.float32, 4096, 2, 512, 8),
                                                   (torch.bfloat16, 4096, 2, 512, 8), (torch.float32, 16384, 8, 128, 64)]:
        times = interleaved(row_cases(dtype, tokens, choices, width, experts), options.repeats)
        case = {"case": f"rows {str(dtype)[6:]} T{tokens} K{choices} D{width} E{experts}", "microseconds": times}
        results["cases"].append(case)
        print(case["case"])
        for name, t in times.items():
            print(f"    {name:20s} {t:10.0f} us")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
