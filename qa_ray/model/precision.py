"""Which number format the hardware computes in."""

import torch

from qa_ray.config.policies import Precision
from qa_ray.errors import ConfigError

# Accelerate's names.
_ACCELERATE = {Precision.FP32: "no", Precision.BF16: "bf16", Precision.FP16: "fp16"}
_DTYPES = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


def choose_precision(wanted: Precision, device: torch.device, option: str = "train.precision") -> Precision:
    """Resolve `auto` for a device, and refuse what it cannot do; `option` is how the user sets it.

    Raises:
        ConfigError: fp16 on a CPU.
    """
    if wanted is Precision.FP16 and device.type == "cpu":
        raise ConfigError(f"{option}=fp16 needs a GPU: use bf16 or fp32 on CPUs, or auto")
    if wanted is not Precision.AUTO:
        return wanted
    if not emulates_bf16(device):
        return Precision.BF16
    return Precision.FP32 if device.type == "cpu" else Precision.FP16


def emulates_bf16(device: torch.device) -> bool:
    """Whether a device has no instructions for bf16, so that it is slower than fp32 on CPUs and fp16 on GPUs."""
    if device.type == "cpu":
        return not _cpu_has_bf16()
    # Those of GPUs came with compute capability 8.0.
    return bool(torch.cuda.get_device_capability(device)[0] < 8)


def accelerate_name(precision: Precision) -> str:
    """Accelerate's name of a resolved precision."""
    return _ACCELERATE[precision]


def dtype_of(precision: Precision) -> torch.dtype:
    """Torch's type of a resolved precision."""
    return _DTYPES[precision]


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
