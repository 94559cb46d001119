"""`qa-ray COMMAND ...`: find the command, and tell what there is."""

import difflib
import sys
from collections.abc import Sequence

import qa_ray
from qa_ray.cli import commands

COMMANDS = {
    command.__name__: command
    for command in (
        commands.train,
        commands.ask,
        commands.evaluate,
        commands.predict,
        commands.serve,
        commands.tune,
        commands.inspect,
        commands.doctor,
        commands.publish,
        commands.benchmark,
        commands.schema,
    )
}

_OVERVIEW = """\
Fine-tune, search, evaluate, publish and use extractive question-answering models, on this machine or a Ray cluster.

Begin here
  qa-ray train sample                                  a small model on the data that come along, in minutes
  qa-ray ask runs/RUN "Who wrote it?" --context a.txt  ask it about a text
With your own data
  qa-ray inspect minilm --data.train a.jsonl --data.validation b.jsonl   know the data: lengths, windows, odd rows
  qa-ray doctor minilm --data.train a.jsonl --data.validation b.jsonl    would a run fail? looks before it starts
  qa-ray train minilm --data.train a.jsonl --data.validation b.jsonl     fine-tune; report.html shows how well
  qa-ray evaluate runs/RUN --data c.jsonl              measure a model on other questions, or against another
  qa-ray predict runs/RUN --data d.parquet             answer many questions
  qa-ray serve runs/RUN                                a page to ask it on, and an API
  qa-ray tune my.toml --tune.num-trials 20             search learning rate, stride or any other field
  qa-ray publish runs/RUN --repo-id USER/NAME          to the Hugging Face Hub, with a model card
Besides
  qa-ray train sample --dry-run > my.toml              a configuration as a file, to be changed and run again
  qa-ray schema > qa_ray.schema.json                   its JSON schema, for editors
  qa-ray benchmark                                     the speed of each part on this machine
  qa-ray --completion bash|zsh|tcsh                    a script that completes commands and fields in the shell

qa-ray COMMAND --help tells more of each; qa-ray train --help lists the recipes.\
"""
_SHELLS = ("bash", "zsh", "tcsh")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    name, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in COMMANDS:
        return COMMANDS[name](words)
    if name in ("-h", "--help", "help"):
        print(_OVERVIEW)
        return 0
    if name == "--version":
        print(f"qa_ray {qa_ray.__version__}")
        return 0
    if name == "--completion" and len(words) == 1 and words[0] in _SHELLS:
        from qa_ray.cli.completion import print_completion  # here: it brings the options of all commands

        print_completion(words[0])
        return 0
    if name == "--completion":
        print(f"error: --completion takes one of {', '.join(_SHELLS)}", file=sys.stderr)
        return 2
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    print(f"error: there is no command {name!r}: {meant}There are {', '.join(COMMANDS)}", file=sys.stderr)
    return 2
