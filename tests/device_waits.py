"""Counts on a CPU what would make the host wait for a GPU: a look at a tensor's values, or a copy of them."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
# Their result, or its size, depends on values. Those behind .item(), bool(), int(), float() and `if` are the first.
_LOOKS = {
    _aten._local_scalar_dense.default,
    _aten.equal.default,
    _aten.is_nonzero.default,
    _aten.masked_select.default,
    _aten.nonzero.default,
    _aten._unique2.default,
    _aten.unique_consecutive.default,
    _aten.unique_dim.default,
}
_COPIES = {torch.Tensor.cpu, torch.Tensor.tolist}


def _where() -> str:
    frames = [frame for frame in traceback.extract_stack() if "torch/" not in frame.filename]
    return " < ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in reversed(frames[-6:-1]))


class _Looks(TorchDispatchMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # An index by booleans becomes one by their places.
        by_booleans = func is _aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])
        if func in _LOOKS or by_booleans:
            self._found.append(f"{func} at {_where()}")
        return func(*args, **(kwargs or {}))


class _Copies(TorchFunctionMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        to_host = func is torch.Tensor.to and any(str(argument) == "cpu" for argument in args[1:])
        if func in _COPIES or (to_host and not (kwargs or {}).get("non_blocking")):
            self._found.append(f"{func.__name__} at {_where()}")
        return func(*args, **(kwargs or {}))


@contextmanager
def waits() -> Iterator[list[str]]:
    """What would wait inside, and where it stands in the code."""
    found: list[str] = []
    with _Looks(found), _Copies(found):
        yield found
