"""What the words after a command say: RECIPE|FILE and fields for a run, or a job's own options."""

import argparse
import dataclasses
import textwrap
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import tyro

from qa_ray.config.files import new_name, open_recipe
from qa_ray.config.fine_tuning import Config
from qa_ray.config.recipes import RECIPES

C = TypeVar("C", bound=Config)
T = TypeVar("T")

_MARKERS = (tyro.conf.EnumChoicesFromValues,)
_DRY_RUN = "--dry-run"


class Parsed(NamedTuple):
    """What a command line asks for."""

    config: Config
    dry_run: bool
    """Whether the configuration is only to be shown."""
    name: str
    """Name of the run if none is given."""

    def named(self) -> Config:
        """The configuration of a run that is to begin, which has a name."""
        run = self.config.run
        return dataclasses.replace(self.config, run=dataclasses.replace(run, name=run.name or self.name))


def parse_run(
    argv: Sequence[str],
    extend: Callable[[Config], Config] = lambda recipe: recipe,
    program: str = "qa-ray train",
    about: str = "",
) -> Parsed:
    """Read `RECIPE|FILE [--dry-run] [--section.field VALUE ...]`.

    Args:
        argv: the words.
        extend: makes the configuration that is wanted of a recipe, if it has knobs of its own.
        program: stands before the words in the help.
        about: what the command does.

    Raises:
        ConfigError: there is no such recipe, or the file cannot be used.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        usage=f"{program} RECIPE|FILE [{_DRY_RUN}] [--section.field VALUE ...]",
        description=f"{about} RECIPE --help lists every field.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="recipes:\n" + "\n".join(f"  {name:<25} {_first_line(recipe)}" for name, recipe in RECIPES.items()),
    )
    parser.add_argument("recipe", metavar="RECIPE|FILE", help="a recipe, a .toml file, or the config.json of a run")
    parser.add_argument(_DRY_RUN, action="store_true", help="print the resolved configuration as TOML and stop")
    # Help after the recipe's name is about its fields, not about this parser.
    own = [item for item in argv[1:] if item == _DRY_RUN]
    chosen = parser.parse_args([*argv[:1], *own])
    source: str = chosen.recipe
    default, stem = open_recipe(source, extend)
    words = [item for item in argv[1:] if item not in own]
    config = tyro.cli(type(default), prog=f"{program} {source}", args=words, default=default, config=_MARKERS)
    return Parsed(config, chosen.dry_run, new_name(stem))


def parse_options(options: type[T], argv: Sequence[str], program: str) -> T:
    """Read the options of a job that is no run: the fields of a dataclass, whose docstring is the help."""
    return tyro.cli(options, prog=program, args=argv, config=_MARKERS)


def _first_line(recipe: Callable[[], Config]) -> str:
    return textwrap.shorten((recipe.__doc__ or "").splitlines()[0], 200)
