"""Goes on with torch.optim from a state that this package wrote.

python continue_optimizer.py <state.safetensors> <result.safetensors>

The file holds parameters (param.0), gradients of each step (grad.0.0) and state (state.0.exp_avg); its metadata names the
optimizer and holds the parameter groups. The result has the parameters and the state after the steps.
"""

import json
import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file

source, target = sys.argv[1:]
params, grads, state = {}, {}, {}
with safe_open(source, "pt") as file:
    metadata = file.metadata()
    for name in file.keys():
        kind, *rest = name.split(".")
        tensor = file.get_tensor(name)
        if kind == "param":
            params[int(rest[0])] = torch.nn.Parameter(tensor)
        elif kind == "grad":
            grads[int(rest[0]), int(rest[1])] = tensor
        else:
            state.setdefault(int(rest[0]), {})[rest[1]] = tensor

ordered = [params[i] for i in sorted(params)]
groups = json.loads(metadata["param_groups"])
optimizer = getattr(torch.optim, metadata["optimizer"])(
    [{"params": [ordered[i] for i in group["params"]]} for group in groups], lr=99.0
)
optimizer.load_state_dict({"state": state, "param_groups": groups})
for step in range(int(metadata["steps"])):
    for i, param in enumerate(ordered):
        param.grad = grads[step, i]
    optimizer.step()

result = {f"param.{i}": p.detach() for i, p in enumerate(ordered)}
for i, own in optimizer.state_dict()["state"].items():
    result |= {f"state.{i}.{key}": value for key, value in own.items()}
save_file(result, target)
