"""Runs the tests of this folder on a GPU, then a part of them under compute-sanitizer, and writes what came out as JSON.

    FMOE_KERNELS_LIBRARY=.../libfmoe_kernels.so python record_gpu_run.py RESULT.json [test files, default test_cuda.py]
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import torch

# Every kernel, in a few cases each: the checker slows all of it down by an order of magnitude.
SANITIZED = "[3] or [17] or [42] or [86] or large_layers or out_of_range or contradictions or 67-33 or many_experts"


def counts(output):
    return {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", output[-2000:])}


def run(command):
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return process.returncode, process.stdout


def main():
    result, *files = sys.argv[1:]
    files = files or ["test_cuda.py"]
    folder = pathlib.Path(__file__).parent
    os.chdir(folder)
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    status, output = run([*pytest, "-n", str(min(10, os.cpu_count())), *files])
    failures = re.findall(r"^FAILED (\S+)", output, re.MULTILINE)
    print(output[-3000:])
    sanitizer_status, sanitizer = run(
        ["compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "99", *pytest, "-x", "-k", SANITIZED, "test_cuda.py"])
    print(sanitizer[-1500:])
    summary = re.findall(r"ERROR SUMMARY: (\d+) error", sanitizer)
    driver = run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])[1].strip()
    record = {
        "gpu": torch.cuda.get_device_name(),
        "driver": driver,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        "files": files,
        "tests": counts(output),
        "failed": failures,
        "status": status,
        "memcheck": {"tests": counts(sanitizer), "errors": int(summary[-1]) if summary else None, "status": sanitizer_status},
    }
    pathlib.Path(result).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
