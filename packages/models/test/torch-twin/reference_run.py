"""Trains the twin and writes down everything needed to repeat the run: python reference_run.py FOLDER.

FOLDER/request.json holds {config, steps, batch, tgtLen, lr, seed, threads}. Written into FOLDER: weights.safetensors
(float32; both dtypes start from them), stream.safetensors, routing.safetensors and losses.json.
"""

import json
import pathlib
import sys

import torch

from config import TwinConfig
from make_fixtures import DTYPES, write_tensors
from training import run, stream_batches
from transformer_xl import TransformerXL, initialize


def main(folder: pathlib.Path) -> None:
    request = json.loads((folder / "request.json").read_text())
    torch.set_num_threads(request["threads"])
    config = TwinConfig(**request["config"])
    steps, tgt_len = request["steps"], request["tgtLen"]

    model = TransformerXL(config)
    torch.manual_seed(request["seed"])
    initialize(model)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    write_tensors(weights, folder / "weights.safetensors")

    length = config.ext_len + steps * tgt_len + 1
    stream = torch.randint(config.n_token, (length, request["batch"]))
    write_tensors({"stream": stream}, folder / "stream.safetensors")

    losses, routing = {"torch": torch.__version__.split("+")[0]}, {}
    for name, dtype in DTYPES.items():
        model = TransformerXL(config)
        model.load_state_dict(weights)
        model.to(dtype)
        trace = run(model, stream_batches(stream, tgt_len, config.ext_len, steps), request["lr"])
        losses[name] = trace.losses
        if trace.routing:
            routing[name] = torch.stack(trace.routing).to(torch.int16)
    if routing:
        write_tensors(routing, folder / "routing.safetensors")
    (folder / "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
