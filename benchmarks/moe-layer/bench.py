"""Times a whole MoE layer on one GPU and writes JSON.

    python bench.py FOLDER_OF_THE_LIBRARIES RESULT.json [--shapes 0,4] [--layers fmoe,grouped,compiled,loop]
                    [--dtypes bfloat16,float32] [--profile]

TFLOP/s count the experts' products alone: 2 T K D H for each matrix forward, three times that with the backward. Times are
medians; the layers take turns, so that all see the same clocks. `saved` is what the forward keeps for the backward beyond
its output, `peak` what one step needs beyond inputs and gradients, both in MiB. float32 runs in TF32.
"""

import argparse
import json
import pathlib
import statistics

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
    (64, 1024, 4096, 8, 2, False),
]
MIB = 2**20


def make_inputs(shape, dtype):
    tokens, width, hidden, experts, _, gated = shape
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(scale, *size):
        return (torch.randn(size, device="cuda", generator=generator, dtype=dtype) * scale).requires_grad_()

    up = 2 * hidden if gated else hidden
    return [normal(1, tokens, width), normal(width**-0.5, experts, width), normal(width**-0.5, experts, up, width),
            normal(hidden**-0.5, experts, width, hidden)]


def time_of(run):
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def memory_of(forward, inputs, grad):
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    y = forward()
    saved = torch.cuda.memory_allocated() - before - y.numel() * y.element_size()
    torch.cuda.reset_peak_memory_stats()
    grads = torch.autograd.grad(y, inputs, grad)
    kept = sum(g.numel() * g.element_size() for g in grads)
    return saved / MIB, (torch.cuda.max_memory_allocated() - before - kept) / MIB


def kernels_of(run):
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(3):
            run()
        torch.cuda.synchronize()
    events = [e for e in profiler.key_averages() if e.device_time_total > 0]
    events.sort(key=lambda e: -e.device_time_total)
    return [{"kernel": e.key[:110], "calls": e.count // 3, "us": round(e.device_time_total / 3, 1)} for e in events]


def measure(shape, dtype, names, repeats, profile):
    tokens, width, hidden, experts, choices, gated = shape
    inputs = make_inputs(shape, dtype)
    grad = torch.randn_like(inputs[0])
    flop = 2 * tokens * choices * width * hidden * (3 if gated else 2)
    functions = {"fmoe": layers.fmoe_layer, "grouped": layers.grouped_layer, "loop": layers.loop_layer,
                 "compiled": torch.compile(layers.grouped_layer, dynamic=False)}
    result, runs, failed = {}, {}, {}
    for name in names:
        def forward(layer=functions[name]):
            return layer(*inputs, choices, gated)

        def step(forward=forward):
            return torch.autograd.grad(forward(), inputs, grad)

        try:
            for _ in range(3):
                step()
            runs[name] = (forward, step)
            saved, peak = memory_of(forward, inputs, grad)
            result[name] = {"saved_mib": round(saved, 1), "peak_mib": round(peak, 1)}
        except Exception as error:  # a peer that does not take a shape is a result
            failed[name] = f"{type(error).__name__}: {str(error)[:200]}"
    times = {name: ([], []) for name in runs}
    for _ in range(repeats):
        for name, (forward, step) in runs.items():
            with torch.no_grad():
                times[name][0].append(time_of(forward))
            times[name][1].append(time_of(step))
    for name, (ahead, both) in times.items():
        ahead, both = statistics.median(ahead), statistics.median(both)
        result[name] |= {"forward_ms": round(ahead, 4), "step_ms": round(both, 4),
                         "forward_tflops": round(flop / ahead / 1e9, 1), "step_tflops": round(3 * flop / both / 1e9, 1)}
    if profile and "fmoe" in runs:
        result["fmoe_kernels"] = kernels_of(runs["fmoe"][1])
    return {"shape": dict(zip(["T", "D", "H", "E", "K", "gated"], shape)), "dtype": str(dtype)[6:], "layers": result,
            "failed": failed}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("result", type=pathlib.Path)
    parser.add_argument("--shapes", default=",".join(map(str, range(len(SHAPES)))))
    parser.add_argument("--layers", default="fmoe,grouped,compiled,loop")
    parser.add_argument("--dtypes", default="bfloat16,float32")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    torch.ops.load_library(options.folder / "libfmoe_kernels.so")
    torch.ops.load_library(options.folder / "libfmoe_kernels_cuda.so")
    torch.backends.cuda.matmul.allow_tf32 = True
    record = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda, "results": []}
    for dtype in options.dtypes.split(","):
        for number in options.shapes.split(","):
            shape = SHAPES[int(number)]
            entry = measure(shape, getattr(torch, dtype), options.layers.split(","), options.repeats, options.profile)
            record["results"].append(entry)
            figures = {k: (v["forward_tflops"], v["step_tflops"], v["step_ms"], v["saved_mib"])
                       for k, v in entry["layers"].items() if "step_ms" in v}
            print(dtype, shape, figures, entry["failed"], flush=True)
            options.result.write_text(json.dumps(record, indent=2) + "\n")
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
