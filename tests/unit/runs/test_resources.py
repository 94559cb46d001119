"""How many workers a run gets by default."""

import pytest

from qa_ray.config.operation import ClusterConfig
from qa_ray.runs.resources import Resources, choose, idle_note


@pytest.mark.parametrize(
    ("config", "cpus", "gpus", "expected"),
    [
        (ClusterConfig(), [1], 0, Resources(1, 1, 1, False)),
        (ClusterConfig(), [2], 0, Resources(1, 1, 2, False)),
        (ClusterConfig(), [4], 0, Resources(2, 2, 2, False)),
        (ClusterConfig(), [7], 0, Resources(2, 2, 3, False)),
        (ClusterConfig(), [16], 4, Resources(4, 4, 1, True)),
        (ClusterConfig(use_gpu=False), [16], 4, Resources(2, 2, 8, False)),
        (ClusterConfig(num_workers=8), [4], 0, Resources(8, 8, 1, False)),
        (ClusterConfig(num_workers=1), [4], 0, Resources(1, 1, 4, False)),
        (ClusterConfig(), [1, 1], 0, Resources(2, 2, 1, False)),
        (ClusterConfig(), [0, 2, 2, 2], 0, Resources(2, 2, 2, False)),
        (ClusterConfig(), [], 0, Resources(1, 1, 1, False)),
        (ClusterConfig(cpus_per_worker=3), [16], 4, Resources(4, 4, 3, True)),
    ],
    ids=[
        "one core",
        "two cores",
        "four cores",
        "odd cores",
        "GPUs",
        "GPUs unused",
        "too many",
        "one worker",
        "two nodes of one core",
        "three nodes of two cores",
        "no nodes yet",
        "CPUs per GPU",
    ],
)
def test_choice(config: ClusterConfig, cpus: list[int], gpus: int, expected: Resources) -> None:
    assert choose(config, cpus, gpus) == expected


@pytest.mark.parametrize(
    ("workers", "told"),
    [
        ((4, 4), None),
        ((1, 4), None),
        ((6, 6), "6 workers share the batch.size=4 windows of a step: 2 of them have nothing to do. Set "),
        ((2, 5), "up to 5 workers share the batch.size=4 windows of a step: 1 of them have nothing to do. Set "),
    ],
    ids=["as many as windows", "elastic", "too many", "elastic, too many"],
)
def test_workers_without_a_window_are_told_of(workers: tuple[int, int], told: str | None) -> None:
    note = idle_note(Resources(*workers, 1, False), 4)
    assert note is None if told is None else note is not None and note.startswith(told)
    if note:
        assert "cluster.num_workers to at most 4, or raise batch.size" in note
