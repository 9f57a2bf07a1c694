import os
import pathlib

import pytest
import torch

DEFAULT = pathlib.Path(__file__).parent.parent / "native" / "build" / "libfmoe_kernels.so"


def pytest_configure(config):
    library = pathlib.Path(os.environ.get("FMOE_KERNELS_LIBRARY", DEFAULT))
    if not library.exists():
        pytest.exit(f"{library} is missing: build packages/kernels/native, or set FMOE_KERNELS_LIBRARY", 2)
    torch.ops.load_library(library)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(2)
