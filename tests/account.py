"""The last two lines of a test run: what was tested, and what was left out and why."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

_FAULTS = ("failed", "error")
_RUN = ("passed", "xfailed", "xpassed", *_FAULTS)


def account(stats: Mapping[str, Sequence[Any]], config: pytest.Config) -> list[str]:
    """Tell of the reports and deselected items that pytest has by outcome; nothing where tests are only listed."""
    if config.option.collectonly:
        return []
    run = {report.nodeid for outcome in _RUN for report in stats.get(outcome, ())}
    faults = {report.nodeid for outcome in _FAULTS for report in stats.get(outcome, ())}
    left_out = Counter(_reason(report) for report in stats.get("skipped", ()))
    left_out.update(_choice(item, config) for item in stats.get("deselected", ()))
    bad = f"; {len(faults)} of them failed" if faults else ""
    why = [f"{number:,} {reason}" for reason, number in left_out.most_common()]
    return [f"Tested: {_by_kind(run)}{bad}", f"Left out: {'; '.join(why) or 'nothing'}"]


def _by_kind(nodeids: Iterable[str]) -> str:
    """Count tests by the folder of tests/ in which they stand."""
    kinds = Counter(nodeid.removeprefix("tests/").partition("/")[0] for nodeid in nodeids)
    return ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common()) or "nothing"


def _reason(skipped: pytest.TestReport) -> str:
    longrepr = skipped.longrepr
    said = str(longrepr[2] if isinstance(longrepr, tuple) else longrepr)
    return f"({said.removeprefix('Skipped: ')})"


def _choice(item: pytest.Item, config: pytest.Config) -> str:
    if config.option.markexpr == "not long" and item.get_closest_marker("long"):
        return "long (make test-all)"
    chosen = {"-m": config.option.markexpr, "-k": config.option.keyword, "--deselect": config.option.deselect}
    return f"(not chosen by {' and '.join(option for option, value in chosen.items() if value)})"
