"""What a run was made with: versions, hardware and the code's commit, for the record and the model card."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pynvml  # type: ignore[import-untyped]

_PACKAGES = ("qa_ray", "torch", "transformers", "tokenizers", "accelerate", "ray", "pyarrow", "numpy", "mlflow")
_PATIENCE_S = 10


def describe_environment(folder: Path | None = None, nvml: Any = pynvml) -> dict[str, str]:
    """Return what `describe_code` and `describe_machine` tell of this process; what is not known is left out."""
    found = describe_code(folder) | describe_machine(nvml)
    return {name: value for name, value in found.items() if value}


def describe_code(folder: Path | None = None) -> dict[str, str]:
    """Return versions and commit as names and texts; what is not there or not known is left out.

    Names: python, platform, the packages, git_commit and git_changed (whether files that git knows differ from the
    commit).

    Args:
        folder: of the code; the working directory by default.
    """
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    found |= versions(_PACKAGES)
    commit = _output("git", "rev-parse", "HEAD", folder=folder)
    if commit:
        changed = _output("git", "status", "--porcelain", "--untracked-files=no", folder=folder)
        found |= {"git_commit": commit, "git_changed": "true" if changed else "false"}
    return found


def describe_machine(nvml: Any = pynvml) -> dict[str, str]:
    """Return the hardware of this machine as names and texts; what is not there or not known is empty.

    Names: cpu, cpu_cores (those that this process may use), memory_gb (10^9 bytes) and gpu.

    Args:
        nvml: NVIDIA's binding, which tells of GPUs.
    """
    memory_gb = f"{psutil.virtual_memory().total / 1e9:.0f}"
    cores = str(len(os.sched_getaffinity(0)))
    return {"cpu": _cpu_name(), "cpu_cores": cores, "memory_gb": memory_gb, "gpu": _gpu_names(nvml)}


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of those packages that are installed; none is imported."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu_name() -> str:
    named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    return named[1] if named else platform.processor()


def _gpu_names(nvml: Any) -> str:
    """GPUs of this machine: `2 x NVIDIA A100-SXM4-40GB`. CUDA itself is not asked: it would take memory of each."""
    try:
        names = [nvml.nvmlDeviceGetName(gpu) for gpu in find_gpus(nvml)]
    except pynvml.NVMLError:
        return ""
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))


def find_gpus(nvml: Any = pynvml) -> list[Any]:
    """NVML's handles of this machine's GPUs, those that this process may not use too; none without NVIDIA's driver.

    Raises:
        pynvml.NVMLError: a GPU or its driver does not answer as it should.
    """
    try:
        nvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return []
    return [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]


def _output(command: str, *arguments: str, folder: Path | None = None) -> str:
    """What a command prints; nothing if it fails or is not there."""
    program = shutil.which(command)
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, *arguments], cwd=folder, capture_output=True, text=True, timeout=_PATIENCE_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
