"""Which number format the hardware computes in."""

import torch

from qa_ray.errors import ConfigError
from qa_ray.policies import Precision

# Accelerate's names.
_ACCELERATE = {Precision.FP32: "no", Precision.BF16: "bf16", Precision.FP16: "fp16"}


def choose_precision(wanted: Precision, device: torch.device) -> Precision:
    """Resolve `auto` for a device, and refuse what it cannot do.

    Raises:
        ConfigError: fp16 on a CPU.
    """
    if wanted is Precision.FP16 and device.type == "cpu":
        raise ConfigError("train.precision=fp16 needs a GPU: use bf16 or fp32 on CPUs, or auto")
    if wanted is not Precision.AUTO:
        return wanted
    if device.type == "cpu":
        # Without instructions for it, bf16 on a CPU is emulated and slower than fp32.
        return Precision.BF16 if _cpu_has_bf16() else Precision.FP32
    # Before compute capability 8.0 bf16 is emulated too.
    return Precision.BF16 if torch.cuda.get_device_capability(device)[0] >= 8 else Precision.FP16


def accelerate_name(precision: Precision) -> str:
    """Accelerate's name of a resolved precision."""
    return _ACCELERATE[precision]


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
