"""The Python side: reads `{"case": …, "iterations": …}` a line, answers with microseconds an iteration."""

import json
import sys
import time
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "packages/models/test/torch-twin"))
from config import TwinConfig  # noqa: E402
from training import training_step  # noqa: E402
from transformer_xl import TransformerXL  # noqa: E402


def operator_cases():
    a, b, w = torch.ones(2, 2), torch.ones(2, 2), torch.ones(2, 2, requires_grad=True)
    return {
        "add": lambda: a + b,
        "add-autograd": lambda: a + w,
        "mm": lambda: a.mm(b),
    }


def mlp_step():
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    x, y = torch.randn(64, 64), torch.randint(0, 10, (64,))

    def step():
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def transformer_step(settings):
    shape = settings["transformer"]
    config = TwinConfig(**shape["config"])
    model = TransformerXL(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    data = torch.randint(0, config.n_token, (shape["length"], shape["batch"]))
    target = torch.randint(0, config.n_token, (shape["length"], shape["batch"]))
    mems = []

    def step():
        nonlocal mems
        _, _, mems = training_step(model, optimizer, data, target, mems)

    return step


def main():
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    cases = operator_cases()
    print(json.dumps({"torch": torch.__version__, "python": sys.version.split()[0]}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        name = request["case"]
        if name not in cases:
            cases[name] = mlp_step() if name == "mlp-step" else transformer_step(request)
        step, iterations = cases[name], request["iterations"]
        start = time.perf_counter_ns()
        for _ in range(iterations):
            step()
        print(json.dumps((time.perf_counter_ns() - start) / 1000 / iterations), flush=True)


main()
