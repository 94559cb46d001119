"""GPUs that are not there: NVML's few calls, answered from a table."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from pynvml import NVMLError_NotSupported

GPUS: list[dict[str, Any]] = [
    {"name": "NVIDIA A100", "busy": 35, "used": 1_000, "total": 80_000, "milliwatts": 175_500, "limit": 700_000},
    {"name": "NVIDIA A100", "used": 40_000, "total": 80_000},
    {"name": "NVIDIA T4", "milliwatts": 30_000},
]
"""Memory in megabytes; what is left out, the GPU does not support."""


def nvml(gpus: list[dict[str, Any]], start: Callable[[], object] = lambda: None) -> SimpleNamespace:
    """Stands in for the module pynvml; a GPU's handle is its row of the table."""
    return SimpleNamespace(
        nvmlInit=start,
        nvmlDeviceGetCount=lambda: len(gpus),
        nvmlDeviceGetHandleByIndex=lambda index: gpus[index],
        nvmlDeviceGetName=lambda gpu: gpu["name"],
        nvmlDeviceGetUtilizationRates=lambda gpu: SimpleNamespace(gpu=_told(gpu, "busy")),
        nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(
            used=_told(gpu, "used") * 10**6, total=gpu["total"] * 10**6
        ),
        nvmlDeviceGetPowerUsage=lambda gpu: _told(gpu, "milliwatts"),
        nvmlDeviceGetEnforcedPowerLimit=lambda gpu: _told(gpu, "limit"),
    )


def _told(gpu: dict[str, Any], figure: str) -> Any:
    if figure not in gpu:
        raise NVMLError_NotSupported
    return gpu[figure]
