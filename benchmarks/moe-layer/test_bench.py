"""The layers that are timed against each other are the same layer, and the script goes through all its steps without a GPU.

    FMOE_KERNELS_LIBRARY=.../libfmoe_kernels.so pytest test_bench.py
"""

import json
import os
import pathlib
import sys

import pytest
import torch

import bench
import layers

BUILD = pathlib.Path(__file__).parents[2] / "packages/kernels/native/build/libfmoe_kernels.so"
LIBRARY = pathlib.Path(os.environ.get("FMOE_KERNELS_LIBRARY", BUILD))
torch.ops.load_library(LIBRARY)


@pytest.mark.parametrize("shape", sorted({bench.tiny(shape) for shape in bench.SHAPES}))
def test_all_layers_agree(shape):
    *_, choices, gated = shape
    inputs = bench.make_inputs(shape, torch.float32, "cpu")
    grad = torch.randn_like(inputs[0])
    results = {}
    for layer in (layers.fmoe_layer, layers.grouped_layer, layers.loop_layer):
        y = layer(*inputs, choices, gated)
        results[layer.__name__] = [y, *torch.autograd.grad(y, inputs, grad)]
    for name in ("grouped_layer", "loop_layer"):
        for actual, expected in zip(results[name], results["fmoe_layer"]):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_writes_every_figure(tmp_path, monkeypatch):
    result = tmp_path / "result.json"
    monkeypatch.setattr(sys, "argv", [
        "bench.py", str(LIBRARY.parent), str(result), "--device", "cpu", "--tiny", "--shapes", "0,4,7",
        "--layers", "fmoe,grouped,loop", "--dtypes", "float32", "--repeats", "3"])
    bench.main()
    entries = json.loads(result.read_text())["results"]
    assert [entry["shape"]["gated"] for entry in entries] == [False, True, False]
    for entry in entries:
        assert entry["failed"] == {} and entry["repeats"] == 3
        assert entry["times_faster_than_best_grouped"] > 0
        for figures in entry["layers"].values():
            assert figures["step_ms"] > 0 and figures["forward_ms"] > 0


def test_stops_in_time(tmp_path, monkeypatch):
    result = tmp_path / "result.json"
    monkeypatch.setattr(sys, "argv", [
        "bench.py", str(LIBRARY.parent), str(result), "--device", "cpu", "--tiny", "--minutes", "0.01"])
    bench.main()
    entries = json.loads(result.read_text())["results"]
    assert len(entries) == 2 * len(bench.SHAPES)
    assert all(set(entry["failed"].values()) == {"the time is up"} for entry in entries)


def test_limit_of_what_is_saved():
    # 2TD + 2TKH bytes of bfloat16, 4TN of logits, and 64 a slot.
    expected = 2 * 4096 * 1024 + 2 * 4096 * 2 * 4096 + 4 * 4096 * 64 + 64 * 4096 * 2
    assert bench.saved_limit(bench.SHAPES[0], torch.bfloat16) == expected / 2**20
