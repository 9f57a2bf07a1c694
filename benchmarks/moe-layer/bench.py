"""Times a whole MoE layer on one GPU and writes JSON, in at most nine minutes.

    python bench.py FOLDER_OF_THE_LIBRARIES RESULT.json [--shapes 0,4] [--layers fmoe,grouped,compiled,loop]
                    [--dtypes bfloat16,float32] [--minutes 9] [--profile]

TFLOP/s count the experts' products alone: 2 T K D H for each matrix forward, three times that with the backward. Times are
medians; the layers take turns, so that all see the same clocks. In MiB: `saved` is what the forward keeps for the backward
beyond its output, `peak` what a step needs at most beyond inputs and gradients, `saved_limit` what the operators of this
project are to stay below (the rows' inputs and pre-activations, 4 bytes a logit, 64 bytes a slot of indices and scores).
float32 runs in TF32. What does not run, or no longer fits into the time, is in `failed` with the reason.

`--device cpu --tiny` goes through the same steps with shapes of a few rows, to check this script where there is no GPU.
"""

import argparse
import functools
import json
import pathlib
import statistics
import time

import torch

import layers

# T, D, H, E, K, gated
SHAPES = [
    (4096, 1024, 4096, 64, 2, False),
    (16384, 1024, 4096, 8, 2, False),
    (16384, 1024, 4096, 96, 2, False),
    (16384, 2048, 8192, 32, 2, False),
    (24576, 1536, 256, 128, 8, True),
    (32768, 4096, 1024, 128, 8, True),
    (16384, 4096, 7168, 8, 2, True),
    (64, 1024, 4096, 8, 2, False),  # the cost on the host
]
MIB = 2**20
# The last moment to begin with another layer, in seconds before the end: compiling it takes the longest.
RESERVE = {"compiled": 50, "loop": 20, "grouped": 10, "fmoe": 5}
# Seconds for the timed runs of one shape.
TIMED_SECONDS = 4


def tiny(shape):
    tokens, width, hidden, experts, choices, gated = shape
    return min(tokens, 64), width // 64, hidden // 64, min(experts, 8), choices, gated


def make_inputs(shape, dtype, device):
    tokens, width, hidden, experts, _, gated = shape
    generator = torch.Generator(device).manual_seed(0)

    def normal(scale, *size):
        drawn = torch.randn(size, device=device, generator=generator, dtype=dtype) * scale
        return drawn.requires_grad_()

    up = 2 * hidden if gated else hidden
    return [normal(1, tokens, width), normal(width**-0.5, experts, width), normal(width**-0.5, experts, up, width),
            normal(hidden**-0.5, experts, width, hidden)]


def saved_limit(shape, dtype):
    tokens, width, hidden, experts, choices, gated = shape
    size = torch.finfo(dtype).bits // 8
    rows = tokens * choices
    return (size * (tokens * width + rows * hidden * (2 if gated else 1)) + 4 * tokens * experts + 64 * rows) / MIB


class Gpu:
    """Time and memory of the current CUDA device."""

    def time(self, run):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    def memory(self, forward, inputs, grad):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        y = forward()
        saved = torch.cuda.memory_allocated() - before - y.numel() * y.element_size()
        grads = torch.autograd.grad(y, inputs, grad)
        kept = sum(g.numel() * g.element_size() for g in grads)
        peak = torch.cuda.max_memory_allocated() - before - kept
        return {"saved_mib": round(saved / MIB, 1), "peak_mib": round(peak / MIB, 1)}

    def release(self):
        torch.cuda.empty_cache()

    def description(self):
        return {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}


class Cpu:
    """The same without a GPU; libtorch counts no memory there."""

    def time(self, run):
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start) * 1e3

    def memory(self, forward, inputs, grad):
        torch.autograd.grad(forward(), inputs, grad)
        return {}

    def release(self):
        pass

    def description(self):
        return {"gpu": None, "cuda": None}


def kernels_of(run):
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(3):
            run()
        torch.cuda.synchronize()
    events = [e for e in profiler.key_averages() if e.device_time_total > 0]
    events.sort(key=lambda e: -e.device_time_total)
    return [{"kernel": e.key[:110], "calls": e.count // 3, "us": round(e.device_time_total / 3, 1)} for e in events]


def function_of(name, dtype):
    if name != "compiled":
        return {"fmoe": layers.fmoe_layer, "grouped": layers.grouped_layer, "loop": layers.loop_layer}[name]
    # What was compiled for other shapes counts against a limit, past which PyTorch silently runs eagerly.
    torch.compiler.reset()
    if dtype == torch.bfloat16:
        return torch.compile(layers.grouped_layer, dynamic=False, fullgraph=True)
    # PyTorch traces its grouped product in bfloat16 alone: elsewhere all around it is compiled.
    product = torch.compiler.disable(torch._grouped_mm)
    return functools.partial(torch.compile(layers.grouped_layer, dynamic=False), product=product)


def prepare(name, shape, inputs, grad):
    """(forward, step) of a layer, after its first runs."""
    function, (*_, choices, gated) = function_of(name, inputs[0].dtype), shape

    def forward():
        return function(*inputs, choices, gated)

    def step():
        return torch.autograd.grad(forward(), inputs, grad)

    for _ in range(3):
        step()
    # The form without gradients is compiled separately.
    with torch.no_grad():
        forward()
    return forward, step


def measure(shape, dtype, names, options, machine, deadline):
    tokens, width, hidden, _, choices, gated = shape
    inputs = make_inputs(shape, dtype, options.device)
    grad = torch.randn_like(inputs[0])
    flop = 2 * tokens * choices * width * hidden * (3 if gated else 2)
    result, runs, failed = {}, {}, {}
    for name in names:
        if time.monotonic() > deadline - RESERVE[name]:
            failed[name] = "the time is up"
            continue
        try:
            runs[name] = prepare(name, shape, inputs, grad)
            result[name] = machine.memory(runs[name][0], inputs, grad)
        except Exception as error:  # a peer that does not take a shape is a result
            runs.pop(name, None)
            failed[name] = f"{type(error).__name__}: {str(error)[:200]}"
        machine.release()
    times = {name: ([], []) for name in runs}
    end = min(deadline, time.monotonic() + TIMED_SECONDS)
    for repeat in range(options.repeats):
        # Three of each at least: a median of fewer is none.
        if repeat >= 3 and time.monotonic() > end:
            break
        for name, (forward, step) in runs.items():
            with torch.no_grad():
                # Untimed: the caches of host and device hold what the layer before used.
                forward()
                times[name][0].append(machine.time(forward))
            times[name][1].append(machine.time(step))
    for name, (ahead, both) in times.items():
        ahead, both = statistics.median(ahead), statistics.median(both)
        result[name] |= {"forward_ms": round(ahead, 4), "step_ms": round(both, 4),
                         "forward_tflops": round(flop / ahead / 1e9, 1), "step_tflops": round(3 * flop / both / 1e9, 1)}
    peers = [result[name]["step_ms"] for name in ("grouped", "compiled") if name in runs]
    entry = {"shape": dict(zip(["T", "D", "H", "E", "K", "gated"], shape)), "dtype": str(dtype)[6:], "layers": result,
             "saved_limit_mib": round(saved_limit(shape, dtype), 1), "repeats": len(next(iter(times.values()), [[]])[0]),
             "failed": failed}
    if "fmoe" in runs and peers:
        entry["times_faster_than_best_grouped"] = round(min(peers) / result["fmoe"]["step_ms"], 3)
    if options.profile and "fmoe" in runs:
        entry["fmoe_kernels"] = kernels_of(runs["fmoe"][1])
    return entry


def summary(entry):
    figures = {name: (f["forward_ms"], f["step_ms"], f["step_tflops"], f.get("saved_mib"), f.get("peak_mib"))
               for name, f in entry["layers"].items()}
    return f"{entry['dtype']} {entry['shape']} (forward ms, step ms, TFLOP/s, saved, peak MiB) {figures} {entry['failed']}"


def parse(arguments=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("result", type=pathlib.Path)
    parser.add_argument("--shapes", default=",".join(map(str, range(len(SHAPES)))))
    parser.add_argument("--layers", default="fmoe,grouped,compiled,loop")
    parser.add_argument("--dtypes", default="bfloat16,float32")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--profile", action="store_true")
    return parser.parse_args(arguments)


def main():
    options = parse()
    deadline = time.monotonic() + 60 * options.minutes - 5
    torch.ops.load_library(options.folder / "libfmoe_kernels.so")
    if options.device == "cuda":
        torch.ops.load_library(options.folder / "libfmoe_kernels_cuda.so")
    torch.backends.cuda.matmul.allow_tf32 = True
    machine = Gpu() if options.device == "cuda" else Cpu()
    record = {**machine.description(), "torch": torch.__version__, "results": []}
    for dtype in options.dtypes.split(","):
        for number in options.shapes.split(","):
            shape = tiny(SHAPES[int(number)]) if options.tiny else SHAPES[int(number)]
            entry = measure(shape, getattr(torch, dtype), options.layers.split(","), options, machine, deadline)
            record["results"].append(entry)
            print(summary(entry), flush=True)
            options.result.write_text(json.dumps(record, indent=2) + "\n")
            machine.release()


if __name__ == "__main__":
    main()
