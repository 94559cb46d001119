"""What a node's hardware gives, and whether it is enough."""

import shutil
from pathlib import Path

import pytest

from qa_ray.config.policies import Precision
from qa_ray.doctor import machine
from qa_ray.doctor.machine import Devices, Gpu, Room, devices, free_at, object_store, open_files, room, same_gpus
from qa_ray.doctor.verdict import Status

A100, T4 = Gpu("A100", 40 * 10**9), Gpu("T4", 16 * 10**9)
GB = 10**9


def with_gpus(*gpus: Gpu, precision: str = "bf16") -> Devices:
    return Devices(gpus, precision, emulated=False)


def test_cpu_computes_in_fp32() -> None:
    found = devices(Precision.FP32, use_gpu=False)
    assert (found.precision, found.problem) == ("fp32", "")


def test_fp16_without_a_gpu_fails_and_says_what_works() -> None:
    found = {"a": devices(Precision.FP16, use_gpu=False)}
    verdict = machine.same_precision(found, Precision.FP16)
    assert verdict.status is Status.FAILED
    assert "train.precision=fp16 needs a GPU: use bf16 or fp32" in verdict.seen
    assert "--train.precision" in verdict.cure


def test_bf16_that_a_cpu_emulates_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)
    verdict = machine.same_precision({"old": devices(Precision.BF16, use_gpu=False)}, Precision.BF16)
    assert verdict.status is Status.WARNING
    assert "old: bf16 is emulated" in verdict.seen


def test_auto_that_means_several_formats_fails() -> None:
    found = {"a": with_gpus(A100), "b": with_gpus(T4, precision="fp16")}
    verdict = machine.same_precision(found, Precision.AUTO)
    assert verdict.status is Status.FAILED
    assert "means bf16 on a; fp16 on b" in verdict.seen


@pytest.mark.parametrize(
    ("found", "counted", "need", "status", "words"),
    [
        ({"a": with_gpus(A100), "b": with_gpus(A100)}, (1, 1), GB, Status.PASSED, "2 x A100, 40.0 GB each"),
        ({"a": with_gpus(), "b": with_gpus()}, (0, 0), GB, Status.SKIPPED, "no node has one"),
        ({"a": with_gpus(A100), "b": with_gpus()}, (1, 1), GB, Status.FAILED, "b: Ray counts 1, torch sees 0"),
        ({"a": with_gpus(A100), "b": with_gpus(T4)}, (1, 1), GB, Status.WARNING, "A100 on a; T4 on b"),
        ({"a": with_gpus(A100, T4), "b": with_gpus()}, (2, 0), GB, Status.WARNING, "A100, T4 on a"),
        ({"a": with_gpus(A100), "b": with_gpus()}, (0, 0), GB, Status.WARNING, "a: Ray counts 0, torch sees 1"),
        ({"a": with_gpus(A100), "b": with_gpus(T4)}, (1, 1), 20 * GB, Status.FAILED, "take 20.0 GB"),
        ({"a": with_gpus(A100), "b": with_gpus(A100)}, (1, 1), None, Status.PASSED, "2 x A100"),
    ],
    ids=[
        "alike",
        "none",
        "torch sees none",
        "two kinds",
        "two kinds on a node",
        "not given to Ray",
        "too small",
        "model unknown",
    ],
)
def test_gpus_are_compared_with_ray_each_other_and_the_model(
    found: dict[str, Devices], counted: tuple[int, int], need: int | None, status: Status, words: str
) -> None:
    verdict = same_gpus(found, dict(zip("ab", counted, strict=True)), need)
    assert verdict.status is status
    assert words in verdict.seen


def test_kinds_are_compared_among_nodes_with_gpus() -> None:
    found = {"a": with_gpus(A100), "head": with_gpus()}
    assert same_gpus(found, {"a": 1, "head": 0}, None).status is Status.PASSED


def made_room(*, shared: int = 8 * GB, spill: int = 100 * GB, files: int = 10**6) -> Room:
    return Room(shared, 100 * GB, "/tmp", spill, files)


@pytest.mark.parametrize(
    ("need", "one", "status", "words"),
    [
        (GB, made_room(), Status.PASSED, "take about 1.0 GB, the smallest store has 4.0 GB (b)"),
        (5 * GB, made_room(), Status.WARNING, "spilled to disk"),
        (50 * GB, made_room(spill=GB), Status.FAILED, "the disk of a, b has no room"),
        (GB, made_room(shared=64 * 10**6), Status.WARNING, "/dev/shm is smaller"),
    ],
    ids=["enough", "spills", "no disk either", "docker's small /dev/shm"],
)
def test_object_store_holds_the_tokenised_data(need: int, one: Room, status: Status, words: str) -> None:
    verdict = object_store({"a": one, "b": one}, {"a": 6.0 * GB, "b": 4.0 * GB}, need)
    assert verdict.status is status
    assert words in verdict.seen
    assert bool(verdict.cure) == (status is not Status.PASSED)


def test_memory_that_the_model_alone_exceeds_fails_on_that_node() -> None:
    sizes = {"a": 16.0 * GB, "b": 4.0 * GB}
    assert machine.memory(sizes, dict.fromkeys("ab", 2.0 * GB)).status is Status.PASSED
    verdict = machine.memory(sizes, dict.fromkeys("ab", 5.0 * GB))
    assert verdict.status is Status.FAILED
    assert verdict.seen == "b: the model takes 5.0 GB, and there are 4.0 GB"


def test_low_limit_of_open_files_matters_on_several_nodes_only() -> None:
    low = made_room(files=1024)
    assert open_files({"a": low}).status is Status.PASSED
    verdict = open_files({"a": low, "b": made_room()})
    assert verdict.status is Status.WARNING
    assert "a: 1024 open files" in verdict.seen
    assert "65535" in verdict.cure


def test_room_is_that_of_this_machine(tmp_path: Path) -> None:
    found = room(str(tmp_path / "not" / "yet"))
    assert found.shared_memory == shutil.disk_usage("/dev/shm").total
    assert found.spill > 0
    assert found.temporary > 0
    assert found.open_files > 0


def test_free_space_of_a_folder_that_is_not_there_is_that_of_its_disk(tmp_path: Path) -> None:
    assert abs(free_at(str(tmp_path / "a" / "b")) - shutil.disk_usage(tmp_path).free) < GB
