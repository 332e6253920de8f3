"""Where the network runs and in which number format, and what is tried when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from hnseg.errors import DeviceError

Precision = Literal["auto", "full"]
"""``full``: float32 throughout; ``auto``: a shorter format for the network's products where the device has it."""

_VOXELS_PER_CALL = 4_000_000
"""Enough to keep a GPU busy; with 31 classes in float32 its output is half a gigabyte."""


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` (CUDA, MPS, CPU, in that order), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; else ``DeviceError``."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"No device is called {name!r}; use auto, cpu, cuda, cuda:N or mps.") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"The engine does not run on {name!r}; use auto, cpu, cuda, cuda:N or mps.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise DeviceError(f"{name!r} was asked for but {count} CUDA devices are usable here; use auto or cpu.")
    if device.type == "mps" and not _has_mps():
        raise DeviceError("'mps' was asked for but this machine has no usable Apple GPU; use auto or cpu.")
    return device


def _has_mps() -> bool:
    return bool(torch.backends.mps.is_available())


def network_type(device: torch.device, precision: Precision = "auto") -> torch.dtype:
    """The format of the network's products: float16 on CUDA, bfloat16 on a CPU with AMX, else float32.

    A CPU that merely has AVX-512 instructions for bfloat16 is slower with it than with float32 (docs/inference.md).
    """
    if precision == "auto" and device.type == "cuda":
        return torch.float16
    if precision == "auto" and device.type == "cpu" and _has_amx():
        return torch.bfloat16
    return torch.float32


def _has_amx() -> bool:
    ask = getattr(torch.cpu, "get_capabilities", None)  # older PyTorch cannot tell
    return bool(ask and ask().get("amx_bf16"))


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to run: network on ``device`` in ``dtype``, probabilities gathered on ``gather``, ``batch`` windows per
    call.
    """

    device: torch.device
    gather: torch.device
    batch: int
    dtype: torch.dtype
    reason: str = ""


def memory_ladder(
    device: torch.device, window_voxels: int, batch: int = 0, precision: Precision = "auto"
) -> tuple[Plan, ...]:
    """The plans to try in turn, each with the sentence that is said when it is reached (none for the first).

    ``batch`` 0: one window per call on a CPU, which gains nothing from more, and as many as keep a GPU busy.
    """
    cpu = torch.device("cpu")
    usual = 1 if device.type == "cpu" else max(1, _VOXELS_PER_CALL // window_voxels)
    # MPS has no float64 and lacks operations that the gathering needs.
    gather = cpu if device.type == "mps" else device
    dtype = network_type(device, precision)
    first = Plan(device, gather, batch or usual, dtype)
    plans = [first]
    if first.batch > 1:
        plans.append(Plan(device, gather, 1, dtype, f"{device} ran out of memory: one window at a time."))
    if gather != cpu:
        plans.append(Plan(device, cpu, 1, dtype, f"{device} ran out of memory: probabilities are gathered on the CPU."))
    if device != cpu:
        slower = f"{device} ran out of memory: the CPU takes over, which is slower."
        plans.append(Plan(cpu, cpu, 1, network_type(cpu, precision), slower))
    return tuple(plans)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device. PyTorch has a class for it on CUDA only; else its text tells."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        text in str(error) for text in ("out of memory", "not enough memory", "can't allocate memory")
    )


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """PyTorch uses ``count`` CPU threads inside; None leaves its own choice."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(max(1, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
