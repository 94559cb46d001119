"""Answers in half precision on a GPU are those of fp32, up to rounding; int8 is for CPUs."""

import pytest
import torch
from answerers import CONTEXTS, QUESTIONS, save_decisive
from families import FAMILIES

from qa_ray.answers import QuestionAnswerer
from qa_ray.config.policies import AnswerPrecision
from qa_ray.errors import ConfigError

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    FAMILIES["bert"].save(folder / "tiny")
    save_decisive("bert", folder / "tiny", folder / "model")
    return str(folder / "model")


@pytest.mark.parametrize("precision", ["bf16", "fp16", "auto"])
def test_half_precision_gives_the_scores_of_fp32_up_to_rounding(precision, folder):
    plain = QuestionAnswerer.from_pretrained(folder, device="cuda")
    half = QuestionAnswerer.from_pretrained(folder, device="cuda", precision=precision)
    assert half.precision is not AnswerPrecision.FP32
    prepared = [half.prepare(*pair) for pair in zip(QUESTIONS, CONTEXTS, strict=True)]
    found = [answers[0]["score"] for answers in half.answer(prepared)]
    expected = [answer["score"] for answer in plain(QUESTIONS, CONTEXTS)]
    assert found == pytest.approx(expected, abs=0.1)
    assert found != expected


def test_int8_is_refused(folder):
    with pytest.raises(ConfigError, match="precision=int8 needs a CPU"):
        QuestionAnswerer.from_pretrained(folder, device="cuda", precision="int8")
