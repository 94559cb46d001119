"""Reserved CPUs and GPUs are given back when nothing has used them for a while, and not before."""

import pytest

from qa_ray.tuning.groups import idle_groups

TWO_CPUS = {"state": "CREATED", "bundles": {0: {"CPU": 1.0}, 1: {"CPU": 1.0}}}


@pytest.mark.parametrize(
    ("group", "available", "idle"),
    [
        (TWO_CPUS, {"bundle_group_a01": 2000.0}, True),
        (TWO_CPUS, {"bundle_group_a01": 1999.999}, False),
        (TWO_CPUS, {}, False),
        (TWO_CPUS | {"state": "PENDING"}, {"bundle_group_a01": 2000.0}, False),
        (TWO_CPUS | {"state": "REMOVED"}, {}, False),
        ({"state": "CREATED", "bundles": {0: {"node:1.2.3.4": 0.001}}}, {"bundle_group_a01": 1000.0}, False),
        ({"state": "CREATED", "bundles": {0: {"GPU": 1.0}}}, {"bundle_group_a01": 1000.0}, True),
    ],
    ids=["nothing runs", "one worker runs", "all in use", "waits", "removed", "a trial's own process", "GPU"],
)
def test_group_is_idle_if_it_holds_cpus_or_gpus_and_nothing_runs(
    group: dict[str, object], available: dict[str, float], idle: bool
) -> None:
    assert idle_groups({"a01": group}, available, "01") == ({"a01"} if idle else set())


def test_idle_group_of_another_job_on_the_cluster_is_left_alone() -> None:
    groups = {"a01": TWO_CPUS, "a02": TWO_CPUS}
    available = {"bundle_group_a01": 2000.0, "bundle_group_a02": 2000.0}
    assert idle_groups(groups, available, "01") == {"a01"}
