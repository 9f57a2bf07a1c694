"""Reads files that this package wrote with torch.load and compares them with the fixtures.

python check_pt.py <file with the tensors of pt-all.pt> <the same with 64-bit sizes> <file with those of pt-checkpoint.pt>
"""

import pathlib
import sys

import torch

sys.path.append(str(pathlib.Path(__file__).parent.parent / "fixtures"))
from make_safetensors_fixtures import bits, content  # noqa: E402

plain, wide, checkpoint = sys.argv[1:]
expected = content()
for path in (plain, wide):
    loaded = torch.load(path, weights_only=True)
    assert sorted(loaded) == sorted(expected), list(loaded)
    for name, tensor in expected.items():
        other = loaded[name]
        assert other.dtype == tensor.dtype and other.shape == tensor.shape, name
        assert other.is_contiguous() and not other.requires_grad, name
        assert bits(other) == bits(tensor), name
mapped = torch.load(plain, weights_only=True, mmap=True)
assert bits(mapped["f32"]) == bits(expected["f32"])
loaded = torch.load(checkpoint, weights_only=True)
base = torch.arange(12.0).reshape(3, 4)
assert torch.equal(loaded["transposed"], base.t()) and torch.equal(loaded["row"], base[1])
assert torch.equal(loaded["expanded"], torch.full([4], 5.0))
assert loaded["values"] == [None, True, False, 0, 255, 256, 65536, -1, 2**40, -(2**70), 0.5, "text", "😀", [], {}]
assert loaded["optimizer"]["param_groups"] == [{"lr": 0.1, "betas": [0.9, 0.999]}]
torch.nn.Linear(2, 3).load_state_dict(loaded["model"])
print("equal")
