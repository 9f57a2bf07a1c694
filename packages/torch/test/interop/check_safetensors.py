"""Reads a file that this package wrote, compares it with the fixture, and writes the same with Python.

python check_safetensors.py <file written here> <file to write>
"""

import pathlib
import sys

from safetensors import safe_open
from safetensors.torch import load_file, save_file

sys.path.append(str(pathlib.Path(__file__).parent.parent / "fixtures"))
from make_safetensors_fixtures import bits, content  # noqa: E402

source, target = sys.argv[1:]
loaded = load_file(source)
expected = content()
assert sorted(loaded) == sorted(expected), (sorted(loaded), sorted(expected))
for name, tensor in expected.items():
    other = loaded[name]
    assert other.dtype == tensor.dtype and other.shape == tensor.shape, name
    assert bits(other) == bits(tensor), name
with safe_open(source, "pt") as file:
    assert file.metadata() == {"step": "12"}, file.metadata()
save_file(loaded, target, metadata={"step": "12"})
print(f"{len(loaded)} tensors are equal")
