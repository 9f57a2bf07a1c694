"""Time of the operators against the same work in plain PyTorch, on this machine's CPU.

    python bench_cpu.py [--only mlp] [--threads 2] [--library PATH] [--json PATH] [--give-back]

Variants run interleaved, so that other load hits all alike; the figure is the median, of ratios that of the rounds' ratios.
The allocator keeps freed memory, as it does under @fmoe/torch. With --give-back it is left as glibc has it: then blocks that
a variant frees at the end of the heap are fetched anew in the next round, page by page, and which variant that hits is luck.

R rows, D width, H hidden, E experts, T tokens, K choices a token.
"""

import argparse
import ctypes
import datetime
import json
import pathlib
import re
import statistics
import time

import torch

from moe_mlp import LIBRARY

fmoe = torch.ops.fmoe


def keep_freed_memory():
    """What @fmoe/torch sets when it loads."""
    trim_threshold, mmap_threshold, gibibyte = -1, -3, 1 << 30
    libc = ctypes.CDLL(None)
    libc.mallopt(trim_threshold, gibibyte)
    libc.mallopt(mmap_threshold, gibibyte)


def processor():
    return re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())[1]


def rounds(variants, repeats):
    """The times of each variant in microseconds, one for each round."""
    for run in variants.values():
        run()
    times = {name: [] for name in variants}
    for _ in range(repeats):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) * 1e6)
    return times


def medians(times):
    return {name: statistics.median(values) for name, values in times.items()}


def ratio(times, above, below):
    """How many times as long `above` took, the median over the rounds."""
    return statistics.median(a / b for a, b in zip(times[above], times[below]))


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


def mlp_cases(tokens, width, hidden, experts, choices):
    """The fused expert MLP, a loop over experts, and as many FLOPs in dense products over all rows at once."""
    top_idx, plan = route(tokens, choices, experts, False)
    x = torch.randn(tokens, width, requires_grad=True)
    w1 = (torch.randn(experts, hidden, width) / width**0.5).requires_grad_()
    w2 = (torch.randn(experts, width, hidden) / hidden**0.5).requires_grad_()
    b1, b2 = (torch.zeros(experts, n, requires_grad=True) for n in (hidden, width))
    score = torch.rand(tokens, choices, requires_grad=True)
    leaves, grad = (x, w1, b1, w2, b2, score), torch.randn(tokens, width)
    rows, inner, up, down = (torch.randn(s) for s in (
        (tokens * choices, width), (tokens * choices, hidden), (width, hidden), (hidden, width)))

    def ours():
        _, offsets, row_slot, slot_row = fmoe.route_plan(top_idx, experts)
        return fmoe.moe_mlp(x, w1, b1, w2, b2, score, row_slot, slot_row, offsets, "gelu")

    def loop():
        y = torch.zeros(tokens, width)
        # unbind: indexing would write a whole gradient of all experts for each of them.
        for expert, (u, c, d, e) in enumerate(zip(w1.unbind(), b1.unbind(), w2.unbind(), b2.unbind())):
            token, choice = torch.where(top_idx == expert)
            active = torch.nn.functional.gelu(torch.nn.functional.linear(x[token], u, c))
            out = torch.nn.functional.linear(active, d, e)
            y = y.index_add(0, token, out * score[token, choice, None])
        return y

    def dense_forward():
        return rows @ up, inner @ down

    def dense():
        return dense_forward(), inner @ up.t(), rows @ down.t(), rows.t() @ inner, inner.t() @ rows

    both = lambda function: lambda: torch.autograd.grad(function(), leaves, grad)
    return {"fmoe forward": ours, "loop forward": loop, "dense mm forward": dense_forward, "fmoe both": both(ours),
            "loop both": both(loop), "dense mm both": dense}


def linear_results(repeats):
    cases = [(torch.float32, 2048, 128, 256, 8, False), (torch.float32, 2048, 128, 256, 8, True),
             (torch.float32, 8192, 512, 2048, 8, False), (torch.float32, 2048, 128, 256, 64, False),
             (torch.bfloat16, 2048, 128, 256, 8, False), (torch.float16, 2048, 128, 256, 8, False)]
    for dtype, rows, width, hidden, experts, skewed in cases:
        work = 2 * rows * width * hidden
        times = medians(rounds(linear_cases(dtype, rows, width, hidden, experts, skewed),
                               repeats if work < 1e9 else max(3, repeats // 8)))
        yield {"case": f"grouped linear {str(dtype)[6:]} R{rows} D{width} H{hidden} E{experts}{' skewed' * skewed}",
               "microseconds": times,
               "gflops": {n: work * (3 if "both" in n else 1) / t / 1e3 for n, t in times.items()}}


def row_results(repeats):
    for dtype, tokens, choices, width, experts in [(torch.float32, 1024, 2, 128, 8), (torch.float32, 4096, 2, 512, 8),
                                                   (torch.bfloat16, 4096, 2, 512, 8), (torch.float32, 16384, 8, 128, 64)]:
        times = medians(rounds(row_cases(dtype, tokens, choices, width, experts), repeats))
        yield {"case": f"rows {str(dtype)[6:]} T{tokens} K{choices} D{width} E{experts}", "microseconds": times}


def mlp_results(repeats):
    for shape in [(2048, 256, 512, 16, 2), (4096, 512, 2048, 8, 2)]:
        times = rounds(mlp_cases(*shape), max(5, repeats // 2))
        yield {"case": "mlp float32 T{} D{} H{} E{} K{}".format(*shape), "microseconds": medians(times), "ratios": {
            "speed against the loop over experts, forward + backward": ratio(times, "loop both", "fmoe both"),
            "speed against dense products of as many FLOPs": ratio(times, "dense mm both", "fmoe both"),
            "speed of the loop against the dense products": ratio(times, "dense mm both", "loop both")}}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--library", default=LIBRARY)
    parser.add_argument("--only", default="linear,rows,mlp", help="which cases, with commas between them")
    parser.add_argument("--json")
    parser.add_argument("--give-back", action="store_true", help="leave the allocator as glibc has it")
    options = parser.parse_args()
    if not options.give_back:
        keep_freed_memory()
    torch.ops.load_library(options.library)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    results = {"date": datetime.date.today().isoformat(), "torch": torch.__version__, "processor": processor(),
               "vectors": torch.backends.cpu.get_cpu_capability(), "threads": options.threads,
               "keeps_freed_memory": not options.give_back, "cases": []}
    cases = {"linear": linear_results, "rows": row_results, "mlp": mlp_results}
    for name in options.only.split(","):
        for case in cases[name](options.repeats):
            results["cases"].append(case)
            print(case["case"])
            for variant, microseconds in case["microseconds"].items():
                speed = f" {case['gflops'][variant]:7.0f} GFLOP/s" if "gflops" in case else ""
                print(f"    {variant:20s} {microseconds:10.0f} us{speed}")
            for what, value in case.get("ratios", {}).items():
                print(f"    {what}: {value:.2f}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
