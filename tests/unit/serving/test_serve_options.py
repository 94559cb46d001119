"""What the service may be asked for, and what would open it to others unnoticed."""

import re

import pytest
from command_lines import parser

from qa_ray.errors import ConfigError
from qa_ray.serving.options import TOKEN, ServeOptions, digest, is_loopback, token_digest

parse = parser(ServeOptions)


def test_words_are_options():
    options = parse("models:/qa@champion", "--replicas", "1", "4", "--precision", "int8")
    assert (options.model, options.replica_range, options.precision) == ("models:/qa@champion", (1, 4), "int8")
    assert parse("m", "--replicas", "2").replica_range == (2, 2)
    assert is_loopback(options.host)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": ""}, "MODEL is empty"),
        ({"host": ""}, "--host is empty"),
        ({"port": 70_000}, "--port=70000 must be in [0, 65535]"),
        ({"replicas": 0}, "--replicas=0 must be at least 1"),
        ({"replicas": (3, 2)}, "--replicas=(3, 2) must be at least 1, the fewest first"),
        ({"max_waiting": 0}, "--max-waiting=0 must be at least 1"),
        ({"max_tokens_per_device": 0}, "--max-tokens-per-device=0 must be at least 1"),
        ({"timeout_s": 0.0}, "--timeout-s=0.0 must be above 0"),
        ({"model": "https://user:pass@host/model"}, "--model holds a password"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused(given, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        ServeOptions(**{"model": "m", **given})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_an_open_address_needs_a_token(host, monkeypatch):
    options = ServeOptions(model="m", host=host)
    monkeypatch.delenv(TOKEN, raising=False)
    with pytest.raises(ConfigError, match=f"--host={host} lets other machines in: set {TOKEN}"):
        options.require_guarded()
    monkeypatch.setenv(TOKEN, "short")
    with pytest.raises(ConfigError, match=f"{TOKEN} has 5 characters: give at least 16") as error:
        options.require_guarded()
    assert "short" not in str(error.value)
    monkeypatch.setenv(TOKEN, "a word that is long enough")
    options.require_guarded()
    assert token_digest() == digest("a word that is long enough")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_its_own_machine_needs_none(host, monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    ServeOptions(model="m", host=host).require_guarded()
    assert token_digest() is None
