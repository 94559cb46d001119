"""The preflight on two Ray nodes on this machine, each with a disk of its own: disks.py PLACE

PLACE/driver, PLACE/alike and PLACE/odd are the working directories of the driver and of the nodes; /proc/self/cwd is
the same path in all of them, and another folder in each. Whoever finds a package qa_ray there uses it. The preflight
prints its lines and ends this process with its own code.
"""

import os
import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from ray.cluster_utils import Cluster
from ray_runs import command

ROOT = Path(__file__).parents[2]
HERE = Path("/proc/self/cwd")


def main(place: Path) -> None:
    os.chdir(place / "driver")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    paths = os.environ.get("PYTHONPATH")
    for name in ("alike", "odd"):
        os.chdir(place / name)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(place / name), str(ROOT), *([paths] if paths else [])])
        cluster.add_node(num_cpus=1)
    os.chdir(place / "driver")
    options = {"cluster.address": cluster.address, "run.storage-path": HERE / "runs", "data.train": HERE / "train.json"}
    sys.argv = command(place / "driver", "planned", options)[1:]
    try:
        runpy.run_path(str(ROOT / "jobs" / "doctor.py"), run_name="__main__")
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
