"""cluster.yaml, with the part that docs/clusters.md replaces for machines of one's own."""

import re

from documents import ROOT, blocks


def cluster_file() -> str:
    """Text of cluster.yaml."""
    return (ROOT / "cluster.yaml").read_text(encoding="utf-8")


def own_machines(**values: str) -> str:
    """Text of cluster.yaml for machines of one's own: HEAD, WORKER_1 and the like are replaced by `values`."""
    (part,) = [block.text for block in blocks("yaml") if block.page == "docs/clusters.md"]
    for name, value in values.items():
        assert name in part, f"docs/clusters.md does not name {name}"
        part = part.replace(name, value)
    text, replaced = re.subn(r"# ---- where.*?# ---- until here\n", lambda _: part, cluster_file(), flags=re.DOTALL)
    assert replaced == 1
    return text
