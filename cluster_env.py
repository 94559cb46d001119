"""Run a command with the settings of cluster.env in its environment: python3 cluster_env.py cluster.env COMMAND ...

The file is read as `kubectl create secret --from-env-file` reads it, so that one file serves both: lines NAME=value,
whose value is whatever follows, as it stands. Nothing is quoted, expanded or run. Empty lines, lines that begin with #,
and white space before a name are passed over. It needs nothing but Python, since nodes run it before they have a job.
"""

import os
import re
import sys

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_settings(content: bytes) -> dict[str, str]:
    """Variables by name.

    Raises:
        ValueError: a line is none that both take; the message tells its number and nothing of it: it may be a secret.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            text = line.decode("utf-8").removesuffix("\r").lstrip()
        except UnicodeDecodeError:
            raise ValueError(f"line {number} is not UTF-8") from None
        if not text or text.startswith("#"):
            continue
        name, sign, value = text.partition("=")
        if not sign:
            raise ValueError(f"line {number} has no '=': write NAME=value, on one line")
        if not _NAME.fullmatch(name):
            raise ValueError(f"line {number}: before '=' stands no name of letters, digits and _ alone")
        if name in found:
            raise ValueError(f"line {number} sets a name for the second time")
        if "\0" in value:
            raise ValueError(f"line {number} holds a NUL, which no environment takes")
        found[name] = value
    return found


def main() -> None:
    """Become the command."""
    if len(sys.argv) < 3:
        sys.exit("usage: python3 cluster_env.py FILE COMMAND [ARGUMENT ...]")
    place, *command = sys.argv[1:]
    try:
        with open(place, "rb") as file:
            settings = read_settings(file.read())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {place}: {error.strerror if isinstance(error, OSError) else error}")
    given = {name.encode(): value.encode() for name, value in settings.items()}
    os.execvpe(command[0], command, os.environb | given)


if __name__ == "__main__":
    main()
