"""Device choice and the memory ladder."""

from __future__ import annotations

import pytest
import torch

from hnseg.errors import DeviceError
from hnseg.inference import devices
from hnseg.inference.devices import cpu_threads, is_out_of_memory, memory_ladder, network_type, pick_device


def test_the_cpu_is_always_there() -> None:
    assert pick_device("cpu") == torch.device("cpu")


def test_auto_takes_cuda_before_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"


@pytest.mark.parametrize("name", ["gpu", "vulkan", "cuda:99", "tpu:x"])
def test_a_device_that_is_not_there_is_refused_with_a_remedy(name: str) -> None:
    with pytest.raises(DeviceError, match="use auto"):
        pick_device(name)


def test_the_ladder_goes_from_batches_to_single_windows_to_cpu_gathering_to_the_cpu() -> None:
    plans = memory_ladder(torch.device("cuda:1"), 64**3, batch=6)
    assert [(p.device.type, p.gather.type, p.batch) for p in plans] == [
        ("cuda", "cuda", 6), ("cuda", "cuda", 1), ("cuda", "cpu", 1), ("cpu", "cpu", 1),
    ]  # fmt: skip
    assert plans[0].reason == ""
    assert all("ran out of memory" in plan.reason for plan in plans[1:])


def test_the_cpu_ladder_has_one_rung() -> None:
    (plan,) = memory_ladder(torch.device("cpu"), 64**3)
    assert plan.batch == 1


def test_a_gpu_takes_many_small_windows_at_once_and_one_large_one() -> None:
    assert memory_ladder(torch.device("cuda"), 1_000_000)[0].batch == 4
    assert memory_ladder(torch.device("cuda"), 9_000_000)[0].batch == 1


def test_an_apple_gpu_gathers_on_the_cpu_from_the_start() -> None:
    plans = memory_ladder(torch.device("mps"), 1_000_000)
    assert [(p.device.type, p.gather.type, p.batch) for p in plans] == [
        ("mps", "cpu", 4), ("mps", "cpu", 1), ("cpu", "cpu", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(("amx", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_cpu_computes_in_bfloat16_only_where_its_matrix_unit_makes_that_faster(
    monkeypatch: pytest.MonkeyPatch, amx: bool, expected: torch.dtype
) -> None:
    flags = {"avx512_bf16": True, "amx_bf16": amx}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)
    assert network_type(torch.device("cpu")) == expected
    assert network_type(torch.device("cpu"), "full") == torch.float32


def test_a_torch_that_cannot_name_the_cpus_capabilities_stays_with_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert network_type(torch.device("cpu")) == torch.float32


def test_full_precision_is_full_on_a_gpu_and_on_the_cpu_that_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_has_amx", lambda: True)
    usual, full = (memory_ladder(torch.device("cuda"), 64**3, precision=p) for p in ("auto", "full"))
    assert (usual[0].dtype, usual[-1].dtype) == (torch.float16, torch.bfloat16)
    assert {plan.dtype for plan in full} == {torch.float32}


def test_only_failed_allocations_count_as_out_of_memory() -> None:
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_the_thread_count_is_set_inside_and_restored_after() -> None:
    before = torch.get_num_threads()
    with cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
