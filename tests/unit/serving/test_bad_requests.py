"""Two hundred kinds of requests that cannot be answered: each is refused in words, none is an error of the service."""

import json
import tracemalloc
import zlib

import pytest
from direct_service import ASK, CONTEXT, QUESTION, Client, Direct, options_for

_FIELDS = ("question", "context", "top_k", "threshold", "align_to_words", "max_answer_length", "windows", "contexts")
_VALUES = {
    "null": None,
    "true": True,
    "zero": 0,
    "minus one": -1,
    "half": 0.5,
    "huge number": 10**400,
    "huge exponent": "1e999",
    "word": "word",
    "empty": "",
    "blank": " \t\n\u00a0\u2003",
    "list": [],
    "list of nothing": [None],
    "list of blank": [" "],
    "nested list": [["a"]],
    "dict": {},
    "dict of itself": {"question": "a"},
    "surrogate": "\ud800",
    "surrogate in a list": ["\udfff"],
}


def fine(field: str, kind: str) -> bool:
    """Whether a value is one that may be."""
    return (
        (field in ("question", "context") and kind in ("word", "huge exponent"))
        or (field == "threshold" and kind in ("null", "true", "zero", "minus one", "half"))
        or (field in ("align_to_words", "windows") and kind in ("true", "zero"))
        or (field == "max_answer_length" and kind == "null")
        or (field == "contexts" and kind == "null")
    )


def wrong_values():
    for field in _FIELDS:
        for kind, value in _VALUES.items():
            if not fine(field, kind):
                yield pytest.param({**ASK, field: value}, id=f"{field} is {kind}")


def dumped(content) -> bytes:
    return json.dumps(content).encode()


DEEP = 100_000
BODIES = {
    "nothing": b"",
    "a space": b" ",
    "a brace": b"{",
    "a bracket": b"[",
    "a word": b"question",
    "a number": b"1",
    "a string": b'"question"',
    "null": b"null",
    "a list": b"[]",
    "no field": b"{}",
    "two documents": dumped(ASK) * 2,
    "a comma too many": b'{"question": "a", "context": "b",}',
    "single quotes": b"{'question': 'a', 'context': 'b'}",
    "no question": dumped({"context": CONTEXT}),
    "no context": dumped({"question": QUESTION}),
    "context and contexts": dumped({**ASK, "contexts": [CONTEXT]}),
    "a field too many": dumped({**ASK, "model": "another"}),
    "the other form": dumped({"inputs": ASK}),
    "a wrong byte": b'{"question": "\xff", "context": "b"}',
    "latin-1": '{"question": "caf\u00e9", "context": "b"}'.encode("latin-1"),
    "an overlong byte": b'{"question": "\xc0\x80", "context": "b"}',
    "half a character": b'{"question": "\xe2\x82", "context": "b"}',
    "a surrogate in bytes": b'{"question": "\xed\xa0\x80", "context": "b"}',
    "half an escape": b'{"question": "\\u12", "context": "b"}',
    "a control character": b'{"question": "a\x01b", "context": "b"}',
    "a zero byte": b'{"question": "a\x00b", "context": "b"}',
    "a line in a string": b'{"question": "a\nb", "context": "b"}',
    "not a number": b'{"question": "a", "context": "b", "threshold": NaN}',
    "infinity": b'{"question": "a", "context": "b", "threshold": Infinity}',
    "minus infinity": b'{"question": "a", "context": "b", "threshold": -Infinity}',
    "an infinite exponent": b'{"question": "a", "context": "b", "threshold": 1e999}',
    "a long number": b'{"question": "a", "context": "b", "top_k": ' + b"9" * 5000 + b"}",
    "a longer number": b'{"question": "a", "context": "b", "top_k": ' + b"9" * 50_000 + b"}",
    "deep lists": b"[" * DEEP,
    "deep and closed lists": b"[" * DEEP + b"]" * DEEP,
    "deep dicts": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "a deep field": b'{"question": "a", "context": "b", "contexts": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "an open string": b'{"question": "' + b"a" * 1000,
    "many fields": dumped({str(number): number for number in range(10_000)}),
    "a long question": dumped({"question": "a " * 40_000, "context": "b"}),
    "a long context": dumped({"question": "a", "context": "b " * 40_000}),
    "many contexts": dumped({"question": "a", "contexts": ["b"] * 1001}),
    "xml": b"<question>a</question>",
    "a form": b"question=a&context=b",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "a mark and utf-8": b"\xef\xbb\xbf" + b'{"question": 1}',
}
OTHER_FORMS = {
    "inputs is a text": ("/", {"inputs": "a"}),
    "inputs is null": ("/", {"inputs": None}),
    "inputs is a list": ("/", {"inputs": [ASK]}),
    "no inputs": ("/", {"question": "a", "context": "b"}),
    "blank inputs": ("/", {"inputs": {"question": " ", "context": "b"}}),
    "parameters are a list": ("/", {"inputs": ASK, "parameters": []}),
    "top_k of a task is zero": ("/", {"inputs": ASK, "parameters": {"top_k": 0}}),
    "top_k of a task is huge": ("/", {"inputs": ASK, "parameters": {"top_k": 10**9}}),
    "stride of a task is negative": ("/", {"inputs": ASK, "parameters": {"doc_stride": -1}}),
    "stride of a task fills the window": ("/", {"inputs": ASK, "parameters": {"doc_stride": 383}}),
    "window of a task is beyond the model": ("/", {"inputs": ASK, "parameters": {"max_seq_len": 100_000}}),
    "window of a task is too small": ("/", {"inputs": ASK, "parameters": {"max_seq_len": 1}}),
    "no list of questions": ("/answers", {"questions": None}),
    "no questions": ("/answers", {"questions": []}),
    "a question is a text": ("/answers", {"questions": ["a"]}),
    "one question is blank": ("/answers", {"questions": [ASK, {**ASK, "question": " "}]}),
    "too many questions": ("/answers", {"questions": [ASK] * 100}),
    "too many more": ("/answers", {"questions": [ASK] * 10_000}),
}
HEADERS = {
    "gzip": {"content-encoding": "gzip"},
    "deflate": {"content-encoding": "deflate"},
    "brotli": {"content-encoding": "br"},
    "unknown encoding": {"content-encoding": "x-mine"},
    "text": {"content-type": "text/plain"},
    "form": {"content-type": "application/x-www-form-urlencoded"},
    "parts": {"content-type": "multipart/form-data; boundary=x"},
    "no type": {"content-type": ""},
    "a strange type": {"content-type": "application/json/json"},
}
METHODS = [
    (method, path)
    for path in ("/answer", "/answers", "/model", "/metrics", "/health", "/ready", "/nothing", "/page/../etc/passwd")
    for method in ("PUT", "PATCH", "DELETE", "POST", "GET", "STRANGE")
    if not (method == "POST" and path in ("/answer", "/answers"))
    and not (method == "GET" and path in ("/model", "/metrics", "/health", "/ready"))
]


@pytest.fixture(scope="module")
def client(bert):
    options = options_for(bert, max_characters=50_000, max_questions=64)
    return Client(Direct(options), options)


def assert_refused(found):
    assert 400 <= found.status_code < 500, (found.status_code, found.text)
    words = found.json()["error"]
    assert found.json().keys() == {"error"}
    assert 5 < len(words) < 2000
    assert "Traceback" not in words


@pytest.mark.parametrize("content", list(wrong_values()))
def test_wrong_values(content, client):
    assert_refused(client.post("/answer", content if "\ud800" not in str(content) else dumped(content)))


@pytest.mark.parametrize("body", list(BODIES.values()), ids=list(BODIES))
def test_wrong_bodies(body, client):
    assert_refused(client.post("/answer", body))


@pytest.mark.parametrize(("path", "content"), list(OTHER_FORMS.values()), ids=list(OTHER_FORMS))
def test_wrong_requests_of_other_forms(path, content, client):
    assert_refused(client.post(path, content))


@pytest.mark.parametrize("headers", list(HEADERS.values()), ids=list(HEADERS))
def test_wrong_headers(headers, client):
    assert_refused(client.post("/answer", dumped(ASK), headers=headers))


@pytest.mark.parametrize(("method", "path"), METHODS, ids=str)
def test_wrong_methods_and_paths(method, path, client):
    assert_refused(client.send(method, path))


def test_there_are_two_hundred_kinds():
    assert len([*wrong_values(), *BODIES, *OTHER_FORMS, *HEADERS, *METHODS]) >= 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_bodies_that_would_unpack_to_gigabytes_are_not_unpacked(encoding, client):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    bomb = b"".join([*(packer.compress(b" " * 2**20) for _ in range(256)), packer.flush()])
    tracemalloc.start()
    found = client.post("/answer", bomb, headers={"content-encoding": encoding})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.status_code == 415
    assert peak < 20e6


def test_what_comes_without_a_length_is_not_kept_beyond_the_limit(client):
    sent = 0

    async def endless():
        nonlocal sent
        while sent < 2**30:
            sent += 2**16
            yield b" " * 2**16

    found = client.send("POST", "/answer", content=endless(), headers={"content-type": "application/json"})
    assert found.status_code == 413


def test_control_characters_in_texts_are_texts(client):
    text = "Charles\u0000 built\u0007 the \u202ebridge\u202c \ufffd in\u001b[31m Prague."
    found = client.post("/answer", {"question": "Who\u0000?", "context": text})
    assert found.status_code == 200
    best = found.json()["answers"][0]
    assert text[best["start"] : best["end"]] == best["answer"]
