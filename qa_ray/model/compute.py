"""What a model computes, and in which number format: a batch in, start and end logits and their loss out."""

import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from qa_ray.config.policies import AnswerPrecision, Precision
from qa_ray.data.collate import Batch
from qa_ray.errors import ConfigError
from qa_ray.model.int8 import require_int8
from qa_ray.model.masks import padding_known

logger = logging.getLogger(__name__)


class Logits(NamedTuple):
    """Scores of each token as the first and the last of the answer, fp32 [windows, length]; -inf at padding."""

    start: torch.Tensor
    end: torch.Tensor


def forward(model: torch.nn.Module, batch: Batch) -> Logits:
    """Run the model on a batch.

    Padding is masked out, so that neither the loss nor the probabilities depend on how far a batch was padded.
    """
    with padding_known(padded=batch.padded):
        outputs = model(**batch.inputs)
    return Logits(batch.in_rows(outputs.start_logits), batch.in_rows(outputs.end_logits))


def span_loss(logits: Logits, batch: Batch) -> torch.Tensor:
    """Mean of the start and the end cross-entropy, summed over the windows: a scalar in nats."""
    start = torch.nn.functional.cross_entropy(logits.start, batch.start_positions, reduction="sum")
    end = torch.nn.functional.cross_entropy(logits.end, batch.end_positions, reduction="sum")
    return (start + end) / 2


def freeze_unused(model: PreTrainedModel, batch: Batch) -> int:
    """Freeze parameters that no logit depends on, and return their number.

    Ranks would wait for their gradients for ever; XLNet's mask embedding is one.
    """
    torch.autograd.backward(span_loss(forward(model, batch), batch))
    unused = [weight for weight in model.parameters() if weight.requires_grad and weight.grad is None]
    for weight in unused:
        weight.requires_grad_(False)
    model.zero_grad(set_to_none=True)
    return len(unused)


def choose_device(device: str | int | torch.device | None) -> torch.device:
    """The device that is named: by its name, a CUDA device by its number, the CPU by -1; None takes CUDA if it can.

    Raises:
        ConfigError: there is no such device.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device("cpu" if device == -1 else device)
        torch.empty(0, device=chosen)
    # torch.AcceleratorError is a RuntimeError; a build without CUDA raises AssertionError.
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device={device!r} cannot be used: torch sees {torch.cuda.device_count()} CUDA devices. "
            'Give "cpu", "cuda", or the number of one of them'
        ) from error
    return chosen


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


def answering_precision(
    wanted: AnswerPrecision | str, device: torch.device, option: str = "precision"
) -> AnswerPrecision:
    """Resolve the precision in which questions are answered; `option` is how the user sets it.

    It is fp32, and a warning says so, where a CPU would emulate bf16.

    Raises:
        ConfigError: there is no such precision, or the device has it not.
    """
    if wanted not in list(AnswerPrecision):
        raise ConfigError(f"{option}={wanted!r} must be one of {', '.join(AnswerPrecision)}")
    if wanted == AnswerPrecision.INT8:
        if device.type != "cpu":
            raise ConfigError(f"{option}=int8 needs a CPU: use bf16 or fp16 on GPUs, or auto")
        require_int8(option)
        return AnswerPrecision.INT8
    chosen = choose_precision(Precision(wanted), device, option)
    if chosen is Precision.BF16 and device.type == "cpu" and emulates_bf16(device):
        logger.warning("%s=bf16: this CPU has no instructions for it, so that fp32 is faster, and is taken", option)
        chosen = Precision.FP32
    return AnswerPrecision(chosen)


def common_precision(chosen: Iterable[Precision], keep: Precision | None = None) -> Precision:
    """What workers compute in together, given what `choose_precision` says for each of them.

    Gradients that some have scaled and others have not must never be summed: where only some compute in bf16, all take
    what the others take. A run keeps to the precision that it has computed in so far, `keep`, where all can.
    """
    kinds = set(chosen)
    (common,) = kinds - {Precision.BF16} or kinds
    # GPUs of every kind compute in fp16, and CPUs do not.
    fits = keep is Precision.FP32 or (keep is Precision.FP16 and common is not Precision.FP32)
    return keep if keep is not None and fits else common


def emulates_bf16(device: torch.device) -> bool:
    """Whether a device has no instructions for bf16, so that it is slower than fp32 on CPUs and fp16 on GPUs."""
    if device.type == "cpu":
        return not _cpu_has_bf16()
    # Those of GPUs came with compute capability 8.0.
    return bool(torch.cuda.get_device_capability(device)[0] < 8)


def autocast(precision: AnswerPrecision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a model computes in a resolved precision."""
    if precision in (AnswerPrecision.FP32, AnswerPrecision.INT8):
        return nullcontext()
    return torch.autocast(device.type, dtype_of(Precision(precision)))


def accelerate_name(precision: Precision) -> str:
    """Accelerate's name of a resolved precision."""
    return _ACCELERATE[precision]


def precision_of(name: str) -> Precision:
    """The precision that Accelerate calls `name`."""
    return next(precision for precision, own in _ACCELERATE.items() if own == name)


def dtype_of(precision: Precision) -> torch.dtype:
    """Torch's type of a resolved precision."""
    return _DTYPES[precision]


def _cpu_has_bf16() -> bool:
    # oneDNN, which multiplies matrices of bf16, may not be there, or be kept from them by ONEDNN_MAX_CPU_ISA.
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    if supported is None or not supported():
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
