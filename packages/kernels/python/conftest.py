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
    cuda = library.with_name("libfmoe_kernels_cuda.so")
    if torch.cuda.is_available():
        if not cuda.exists():
            pytest.exit(f"{cuda} is missing although there is a GPU: build packages/kernels/native with nvcc", 2)
        torch.ops.load_library(cuda)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(2)
