"""`qa-ray ask`: a real, tiny model is asked; what it answers decides what is shown, be it right or wrong."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from answerers import CONTEXTS, QUESTIONS, save_decisive
from families import FAMILIES

from qa_ray.answers import QuestionAnswerer
from qa_ray.answers.marking import excerpt
from qa_ray.cli.console import main

TEXT = " ".join(CONTEXTS[:2])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("ask")
    FAMILIES["bert"].save(place / "tiny")
    save_decisive("bert", place / "tiny", place / "model", threshold=0.0)
    return str(place / "model")


@pytest.fixture
def ask(model: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*words: str) -> tuple[int, str, str]:
        code = main(["ask", model, *words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def expected(model: str, question: str) -> str:
    answer = QuestionAnswerer.from_pretrained(model)(question, TEXT)
    assert isinstance(answer, dict)
    shown = excerpt(TEXT, answer["start"], answer["end"]).marked(colour=False) if answer["answer"] else "no answer"
    return f"{answer['score']:7.1%}  {shown}\n"


@pytest.mark.parametrize("question", QUESTIONS[:3])
def test_answer_is_marked_in_its_sentence_with_its_probability(
    question: str, model: str, ask: Callable[..., tuple[int, str, str]]
) -> None:
    assert ask(question, "--text", TEXT) == (0, expected(model, question), "")


def test_text_may_be_a_file_or_come_through_a_pipe(
    model: str, ask: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.txt").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    told = ask(QUESTIONS[0], "--context", str(tmp_path / "text.txt"))
    assert told == (0, expected(model, QUESTIONS[0]), "")
    monkeypatch.setattr("sys.stdin", io.StringIO(TEXT))
    assert ask(QUESTIONS[0], "--context", "-") == told


def test_questions_come_line_by_line_where_none_is_given(
    model: str, ask: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTIONS[0]}\n\n{QUESTIONS[1]}\n"))
    shown = expected(model, QUESTIONS[0]) + expected(model, QUESTIONS[1])
    assert ask("--text", TEXT) == (0, shown, "")


def test_more_answers_are_shown_best_first(ask: Callable[..., tuple[int, str, str]]) -> None:
    _, out, _ = ask(QUESTIONS[0], "--text", TEXT, "--top-k", "3")
    scores = [float(line.split("%")[0]) for line in out.splitlines()]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Who?", "--context", "gone.txt"], "--context=gone.txt cannot be read: No such file or directory"),
        (["Who?", "--context", "latin.txt"], "--context=latin.txt is no text in UTF-8 (byte 1)"),
        (["Who?", "--context", "empty.txt"], "--context=empty.txt is empty"),
    ],
)
def test_text_that_cannot_be_used_is_told_before_the_model_is_opened(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "latin.txt").write_bytes("Größe".encode("latin-1")[1:])
    (tmp_path / "empty.txt").write_text(" \n")
    monkeypatch.chdir(tmp_path)
    assert main(["ask", "no-such-model", *words]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Who?"], "name the text: --context FILE, or --text TEXT"),
        (["Who?", "--text", "a", "--context", "b"], "name the text"),
        (["--context", "-"], "write QUESTION too"),
        (["Who?", "--text", "a", "--top-k", "0"], "--top-k=0 must be at least 1"),
    ],
)
def test_wrong_arguments_are_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ask", "model", *words])
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
