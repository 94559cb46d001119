"""CPUs and GPUs that a lost trial has left reserved: given back, or the trial that is tried again would wait for ever.

Ray keeps a placement group when the process that made it dies, as long as the job lives. Ray Train has a watcher for
that, which needs Ray's dashboard, and a local cluster has none.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.util import placement_group_table
from ray.util.placement_group import PlacementGroup, remove_placement_group

_SECONDS_BETWEEN_LOOKS = 10.0
# What Ray counts a bundle as, whatever it holds.
_BUNDLE = 1000


class GroupCleaner:
    """Removes groups in which nothing runs, once a trial's process has been lost."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lost = False
        self._looked_at = 0.0
        self._idle: set[str] = set()

    def process_lost(self) -> None:
        """Look from now on."""
        self._lost = True

    def look(self) -> None:
        """Remove the groups that were idle at the last look too; does nothing if that was a moment ago.

        A group that has just been made is idle until its workers start, which takes less than the time between looks.
        """
        if not self._lost or self._clock() - self._looked_at < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked_at = self._clock()
        job = ray.get_runtime_context().get_job_id()
        idle = idle_groups(placement_group_table(), ray.available_resources(), job)
        for group in idle & self._idle:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group))))
        self._idle = idle


def idle_groups(groups: Mapping[str, Mapping[str, Any]], available: Mapping[str, float], job: str) -> set[str]:
    """Groups of one job that hold CPUs or GPUs which nothing uses.

    Args:
        groups: Ray's table of placement groups, by id.
        available: resources that are not in use, those within groups among them.
        job: Ray's id of the job, with which the ids of all its groups end; others are on the cluster too.
    """
    return {
        key
        for key, group in groups.items()
        if key.endswith(job)
        and group["state"] == "CREATED"
        and any(bundle.get(kind, 0) for bundle in group["bundles"].values() for kind in ("CPU", "GPU"))
        and available.get(f"bundle_group_{key}", 0) >= _BUNDLE * len(group["bundles"])
    }
