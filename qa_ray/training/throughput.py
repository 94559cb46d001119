"""How fast training goes: windows and tokens per second, padding, and the share of the GPU's peak."""

import re
import time
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

# Peak dense bf16/fp16 tensor throughput in FLOP/s, from NVIDIA's data sheets (without sparsity).
_PEAK = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "T4": 65e12,
    "V100": 125e12,
}


def peak_flops(device: torch.device) -> float | None:
    """Peak FLOP/s of a GPU in half precision; None for CPUs and GPUs that are not in the table."""
    if device.type != "cuda":
        return None
    # By whole words: "A100" is also part of "RTX A1000", and "L4" of "L40".
    words = set(re.split(r"[\s-]", torch.cuda.get_device_name(device)))
    return next((peak for known, peak in _PEAK.items() if words.issuperset(known.split())), None)


def flops_per_token(model: PreTrainedModel, length: float) -> float:
    """FLOPs of one forward and backward pass per token of a window of `length` tokens.

    6 per weight outside the embeddings, and 12 x layers x width x length for attention (Chowdhery et al., 2022,
    PaLM, appendix B).
    """
    embeddings = sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Embedding))
    weights = sum(weight.numel() for weight in model.parameters()) - embeddings
    settings = model.config
    layers, width = getattr(settings, "num_hidden_layers", 0), getattr(settings, "hidden_size", 0)
    return float(6 * weights + 12 * layers * width * length)


@dataclass(slots=True)
class Meter:
    """Counts one rank's work since the last reading; `totals` are summed over the ranks by the caller."""

    loss: torch.Tensor
    """Sum of the windows' losses, kept on the device so that no step waits for it."""
    windows: int = 0
    tokens: int = 0
    """Tokens, padding left out."""
    padded_tokens: int = 0
    seconds: float = 0.0
    """Time on the clock until it was last stopped."""
    since: float | None = None
    """When the clock was last started; None while it stands."""

    @property
    def elapsed(self) -> float:
        """Seconds that the work took until now."""
        return self.seconds + (0.0 if self.since is None else time.perf_counter() - self.since)

    def count(self, loss: torch.Tensor, windows: int, tokens: int, padded_tokens: int) -> None:
        """Add one micro-batch."""
        self.loss += loss.detach()
        self.windows += windows
        self.tokens += tokens
        self.padded_tokens += padded_tokens

    def totals(self) -> torch.Tensor:
        """Loss, windows, tokens and padded tokens as one float64 vector [4] on the loss's device."""
        counts = torch.tensor([self.windows, self.tokens, self.padded_tokens], dtype=torch.float64)
        return torch.cat([self.loss.double().reshape(1), counts.to(self.loss.device, non_blocking=True)])

    def restore(self, totals: torch.Tensor, seconds: float) -> None:
        """Go on counting from what `totals` and `elapsed` returned."""
        loss, *counts = totals.tolist()
        self.loss = torch.full_like(self.loss, loss)
        self.windows, self.tokens, self.padded_tokens = (round(count) for count in counts)
        self.seconds = seconds

    def start_clock(self) -> None:
        """Go on counting time."""
        self.since = time.perf_counter()

    def stop_clock(self) -> None:
        """Leave out the time until the next `start_clock`, such as an evaluation's."""
        self.seconds, self.since = self.elapsed, None

    def restart(self) -> float:
        """Forget what was counted, and return the seconds that it took; the clock runs on."""
        seconds, self.seconds = self.elapsed, 0.0
        self.start_clock()
        self.loss = torch.zeros_like(self.loss)
        self.windows = self.tokens = self.padded_tokens = 0
        return seconds
