"""cluster.yaml, with the part that the README replaces for machines of one's own."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def cluster_file() -> str:
    """Text of cluster.yaml."""
    return (ROOT / "cluster.yaml").read_text(encoding="utf-8")


def own_machines(**values: str) -> str:
    """Text of cluster.yaml for machines of one's own: HEAD, WORKER_1 and the like are replaced by `values`."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (part,) = re.findall(r"```yaml\n(provider:\n  type: local\n.*?)```", readme, re.DOTALL)
    for name, value in values.items():
        assert name in part, f"the README does not name {name}"
        part = part.replace(name, value)
    text, replaced = re.subn(r"# ---- where.*?# ---- until here\n", lambda _: part, cluster_file(), flags=re.DOTALL)
    assert replaced == 1
    return text
