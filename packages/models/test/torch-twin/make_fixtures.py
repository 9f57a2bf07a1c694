"""Writes the fixtures that the TypeScript model is tested against: python make_fixtures.py [OUTPUT_FOLDER].

Needs a complete PyTorch 2.11 installation, safetensors and numpy; the tests that read the fixtures need none of them.
The weights are stored once in float32, so the float64 runs start from exactly the same values.
"""

import itertools
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file

from config import TwinConfig
from training import run, stream_batches
from transformer_xl import TransformerXL, initialize

STEPS, BATCH, TGT_LEN, LR, SEED = 20, 3, 6, 1e-2, 11
TINY = dict(n_token=11, n_layer=2, n_head=2, d_model=16, d_head=8, mem_len=8)
KINDS = {"dense": dict(d_inner=32), "moe": dict(d_inner=16, num_expert=4, top_k=2)}
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def cases():
    """(name, kind, settings) of every run: the product of the switches, and one with extended context."""
    for kind, pre, same, clamp in itertools.product(KINDS, (False, True), (False, True), (-1, 5)):
        name = "-".join([kind, "pre" if pre else "post"] + ["same"] * same + ["clamp"] * (clamp > 0))
        yield name, kind, dict(pre_lnorm=pre, same_length=same, clamp_len=clamp)
    for kind in KINDS:
        yield f"{kind}-post-ext", kind, dict(ext_len=2)
        yield f"{kind}-post-nomem", kind, dict(mem_len=0)
        # A memory longer than a segment grows over the first steps before it is full.
        yield f"{kind}-post-longmem", kind, dict(mem_len=15, same_length=True)


def write_tensors(tensors: dict[str, torch.Tensor], path: pathlib.Path) -> None:
    # Tied tensors are stored under both of their names, which safetensors allows only for copies.
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
    path.chmod(0o644)


def noisy_counting(length: int, generator: torch.Generator) -> torch.Tensor:
    """[length, BATCH]: four of five tokens follow their predecessor, so that the losses fall; the rest are random."""
    jump = torch.rand(length, BATCH, generator=generator) < 0.2
    step = torch.where(jump, torch.randint(TINY["n_token"], jump.shape, generator=generator), torch.tensor(1))
    return step.cumsum(0) % TINY["n_token"]


def main(folder: pathlib.Path) -> None:
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)

    weights = {}
    for kind, extra in KINDS.items():
        model = TransformerXL(TwinConfig(**TINY, **extra))
        # Seeded after construction: how many numbers the default initialisation draws is nobody's contract.
        torch.manual_seed(SEED)
        initialize(model)
        weights[kind] = model.state_dict()
        write_tensors(weights[kind], folder / f"{kind}-weights.safetensors")

    generator = torch.Generator().manual_seed(SEED)
    stream = noisy_counting(STEPS * TGT_LEN + 3, generator)
    write_tensors({"stream": stream}, folder / "stream.safetensors")

    routing, results = {}, []
    for name, kind, settings in cases():
        config = TwinConfig(**{**TINY, **KINDS[kind], **settings})
        entry = {"name": name, "kind": kind, "config": config.as_dict(), "runs": {}}
        for dtype_name, dtype in DTYPES.items():
            model = TransformerXL(config)
            model.load_state_dict(weights[kind])
            model.to(dtype)
            trace = run(model, stream_batches(stream, TGT_LEN, config.ext_len, STEPS), LR)
            entry["runs"][dtype_name] = {
                "losses": trace.losses,
                "balance": trace.balance,
                "gradNorms": trace.grad_norms,
            }
            if trace.routing:
                routing[f"{name}/{dtype_name}"] = torch.stack(trace.routing).to(torch.uint8)
        results.append(entry)
        print(f"{name:24s} {trace.losses[0]:.4f} -> {trace.losses[-1]:.4f}")

    write_tensors(routing, folder / "routing.safetensors")
    header = {"torch": torch.__version__.split("+")[0], "steps": STEPS, "tgtLen": TGT_LEN, "lr": LR, "seed": SEED}
    text = json.dumps({**header, "cases": results}, separators=(",", ":"))
    (folder / "losses.json").write_text(text.replace('{"name"', '\n{"name"') + "\n")


if __name__ == "__main__":
    default = pathlib.Path(__file__).parent.parent / "fixtures" / "transformer-xl"
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default)
