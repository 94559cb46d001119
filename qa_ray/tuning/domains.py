"""The sets that a field's values are drawn from: ranges of numbers, and choices. Each draws, and writes itself down."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from qa_ray.errors import require

Value = int | float | str | bool | tuple[Any, ...] | None
"""A value of a configuration's field."""


@dataclass(frozen=True, slots=True)
class Real:
    """Numbers from `low` to `high`; with `log`, each order of magnitude is as likely as another."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, log=self.log)

    def __str__(self) -> str:
        return f"{'log' * self.log}uniform({self.low:g}, {self.high:g})"

    def draw(self, random: Random) -> float:
        """One number at random."""
        if self.log:
            return math.exp(random.uniform(math.log(self.low), math.log(self.high)))
        return random.uniform(self.low, self.high)


@dataclass(frozen=True, slots=True)
class Integers:
    """Whole numbers from `low` to `high`, both among them."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, log=self.log)

    def __str__(self) -> str:
        return f"{'log' * self.log}randint({self.low}, {self.high})"

    def draw(self, random: Random) -> int:
        """One number at random."""
        if not self.log:
            return random.randint(self.low, self.high)
        # Each number stands for the reals that are rounded to it.
        drawn = math.exp(random.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5)))
        return min(max(round(drawn), self.low), self.high)


@dataclass(frozen=True, slots=True)
class Choice:
    """Single values."""

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        require(bool(self.values), "choice() needs at least one value")
        require(len(set(self.values)) == len(self.values), "choice() has a value twice")

    def __str__(self) -> str:
        return f"choice({', '.join(map(str, self.values))})"

    def draw(self, random: Random) -> Value:
        """One value at random."""
        return random.choice(self.values)


Domain = Real | Integers | Choice


def members(domain: Domain) -> Sequence[Value] | None:
    """All values of a domain; None if they cannot be counted."""
    if isinstance(domain, Choice):
        return domain.values
    return range(domain.low, domain.high + 1) if isinstance(domain, Integers) else None


def _check_range(low: float, high: float, *, log: bool) -> None:
    require(math.isfinite(low) and math.isfinite(high), "the ends must be finite numbers")
    require(low < high, f"the lower end {low:g} must be below the upper end {high:g}")
    require(not log or low > 0, f"the lower end {low:g} of a logarithmic range must be above 0")
