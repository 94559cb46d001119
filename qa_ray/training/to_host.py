"""Tensors on their way from the device to the host: nobody waits for them before they are read."""

from collections.abc import Mapping

import numpy as np
import torch

from qa_ray.schema import Float64s


class ToHost:
    """A few numbers, copied behind what the device still has to do; read them when that is likely to be done."""

    def __init__(self, numbers: torch.Tensor) -> None:
        """Begin to copy `numbers`, which nobody changes any more."""
        # Into pinned memory from a GPU, and no copy at all where the device is the host.
        self._copy = numbers.detach().to("cpu", non_blocking=True)
        self._arrival = _Arrival(numbers.device)

    def read(self) -> Float64s:
        """The numbers, in the tensor's shape; waits for the device where it is not so far yet."""
        self._arrival.wait()
        return self._copy.numpy().astype(np.float64)


class CopiedTensors:
    """Tensors as they are now, whoever changes them afterwards; those that share their memory share the copy."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Begin to copy `tensors` to the host; a GPU changes them only after it has copied them."""
        self._copies: dict[str, torch.Tensor] = {}
        known: dict[object, torch.Tensor] = {}
        for name, tensor in tensors.items():
            place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
            if place not in known:
                known[place] = tensor.detach().to("cpu", non_blocking=True, copy=True)
            self._copies[name] = known[place]
        self._arrivals = [_Arrival(device) for device in {tensor.device for tensor in tensors.values()}]

    def read(self) -> dict[str, torch.Tensor]:
        """The copies by name; waits until they are there."""
        for arrival in self._arrivals:
            arrival.wait()
        return dict(self._copies)


class _Arrival:
    """The moment at which a device has done all that it was given until now."""

    def __init__(self, device: torch.device) -> None:
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(device))

    def wait(self) -> None:
        if self._event is not None:
            self._event.synchronize()
