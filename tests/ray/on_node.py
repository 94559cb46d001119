"""Run a job as it would run on one node of a cluster whose nodes are all on this machine: on_node.py ADDRESS JOB ...

ADDRESS is the node's. Ray would take the head for the job's own node.
"""

import functools
import runpy
import sys

import ray

if __name__ == "__main__":
    _, address, *sys.argv = sys.argv
    ray.init = functools.partial(ray.init, _node_ip_address=address)
    runpy.run_path(sys.argv[0], run_name="__main__")
