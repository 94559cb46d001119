"""The tests' own tokenizers: the same in each process, so that a test that passes once passes always."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from families import FAMILIES

_PRINT_VOCABULARIES = """
import json, families
print(json.dumps({name: family.tokenizer().get_vocab() for name, family in families.FAMILIES.items()}))
"""


@pytest.fixture(scope="module")
def elsewhere() -> dict[str, dict[str, int]]:
    """The vocabularies that another process makes."""
    tests = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", _PRINT_VOCABULARIES], cwd=tests, stdout=subprocess.PIPE, check=True)
    vocabularies: dict[str, dict[str, int]] = json.loads(done.stdout)
    return vocabularies


@pytest.mark.parametrize("name", FAMILIES)
def test_vocabulary_is_the_same_in_another_process(name: str, elsewhere: dict[str, dict[str, int]]) -> None:
    assert FAMILIES[name].tokenizer().get_vocab() == elsewhere[name]
