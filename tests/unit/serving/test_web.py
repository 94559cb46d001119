"""The API: what it answers, in which forms, and what it refuses before a model is asked."""

import asyncio
import itertools

import pytest
from answerers import save_decisive
from direct_service import ASK, CONTEXT, QUESTION, Client, Direct, options_for

from qa_ray.answers import QuestionAnswerer
from qa_ray.serving.messages import Parameters
from qa_ray.serving.options import digest
from qa_ray.serving.service import Refused


@pytest.fixture(scope="module")
def folder(bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    save_decisive("bert", bert, folder, threshold=1.5)
    return folder


@pytest.fixture(scope="module")
def service(folder):
    return Direct(options_for(folder))


@pytest.fixture
def client(service, folder):
    return Client(service, options_for(folder))


@pytest.fixture(scope="module")
def answerer(folder):
    return QuestionAnswerer.from_pretrained(str(folder), device="cpu")


def close(answers, expected):
    assert [(one["answer"], one["start"], one["end"]) for one in answers] == [
        (one["answer"], one["start"], one["end"]) for one in expected
    ]
    assert [one["score"] for one in answers] == pytest.approx([one["score"] for one in expected], rel=1e-4)


def test_answers_are_those_of_the_answerer(client, answerer, folder):
    found = client.post("/answer", {**ASK, "top_k": 4})
    assert found.status_code == 200
    content = found.json()
    assert content.keys() == {"answers", "model", "version"}
    assert (content["model"], content["version"]) == (str(folder), None)
    close(content["answers"], answerer(QUESTION, CONTEXT, top_k=4))


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({"threshold": 100.0}, {"no_answer_threshold": 100.0}),
        ({"threshold": -100.0}, {"no_answer_threshold": -100.0}),
        ({"align_to_words": True}, {"align_to_words": True}),
        ({"max_answer_length": 1}, {"max_answer_len": 1}),
    ],
    ids=str,
)
def test_settings_are_those_of_the_answerer(given, settings, client, answerer):
    found = client.post("/answer", {**ASK, "top_k": 3, **given}).json()["answers"]
    close(found, answerer(QUESTION, CONTEXT, top_k=3, **settings))


def test_several_contexts_are_asked_together(client, answerer):
    contexts = [CONTEXT, "Anna went to Rome.", "The bridge fell."]
    found = client.post("/answer", {"question": QUESTION, "contexts": contexts, "top_k": 5}).json()["answers"]
    expected = answerer(question=QUESTION, contexts=contexts, top_k=5)
    close(found, expected)
    assert [one["context"] for one in found] == [one["context"] for one in expected]


def test_windows_are_told_on_request(client):
    context = "\U0001f600 " + " ".join(f"Charles built the bridge number {number}." for number in range(40))
    found = client.post("/answer", {"question": QUESTION, "context": context, "windows": True}).json()
    windows = found["windows"]
    assert len(windows) > 3
    assert (windows[0]["start"], windows[-1]["end"]) == (0, len(context))
    assert all(before["end"] > after["start"] > before["start"] for before, after in itertools.pairwise(windows))
    assert {one["context"] for one in windows} == {0}


def test_the_form_of_hugging_faces_clients(client, answerer):
    pair = {"question": QUESTION, "context": CONTEXT}
    close([client.post("/", {"inputs": pair}).json()], [answerer(QUESTION, CONTEXT)])
    parameters = {"top_k": 3, "max_answer_len": 4, "align_to_words": True, "handle_impossible_answer": False}
    found = client.post("/", {"inputs": pair, "parameters": parameters}).json()
    close(found, answerer(QUESTION, CONTEXT, **parameters))


def test_every_parameter_of_the_task_is_known():
    from dataclasses import fields

    from huggingface_hub import QuestionAnsweringParameters

    assert Parameters.model_fields.keys() == {field.name for field in fields(QuestionAnsweringParameters)}


def test_many_questions_are_answered_one_by_one(client, answerer):
    asked = [
        ASK,
        {"question": QUESTION, "context": "\u200b\ufeff"},
        {"question": "Who went?", "context": "Anna went to Rome."},
    ]
    results = client.post("/answers", {"questions": asked}).json()["results"]
    close(results[0]["answers"], [answerer(QUESTION, CONTEXT)])
    assert "error" in results[1]
    close(results[2]["answers"], [answerer("Who went?", "Anna went to Rome.")])


def test_the_model_is_described(client, folder):
    found = client.send("GET", "/model").json()
    assert found["name"] == str(folder)
    assert found["window"]["stride"] == 8
    assert found["no_answer_threshold"] == 1.5
    assert (found["precision"], found["device"], found["trouble"]) == ("fp32", "cpu", None)


def test_too_many_at_once_are_refused_at_once(service, folder):
    client = Client(service, options_for(folder, max_waiting=3))

    async def flood():
        return await asyncio.gather(*(client.sent("POST", "/answer", json=ASK) for _ in range(20)))

    found = asyncio.run(flood())
    statuses = [one.status_code for one in found]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 3
    refused = next(one for one in found if one.status_code == 429)
    assert refused.json()["error"] == "3 questions are answered or wait, of at most 3: try again in a moment"
    assert refused.headers["retry-after"] == "1"
    assert client.counted("qa_ray_refused_total") == statuses.count(429)
    assert client.counted("qa_ray_waiting") == 0
    assert client.post("/answer", ASK).status_code == 200
    assert client.post("/answers", {"questions": [ASK] * 4}).status_code == 413


def test_longer_texts_than_are_taken_are_refused(service, folder):
    client = Client(service, options_for(folder, max_characters=100, max_questions=2))
    found = client.post("/answer", {"question": "Who?", "context": "a " * 60})
    assert (found.status_code, found.json()["error"]) == (
        413, "question and texts have 124 characters of the 100 that are taken",
    )  # fmt: skip
    assert client.post("/answer", {"question": "Who?", "contexts": ["a " * 30] * 2}).status_code == 413
    assert client.post("/answers", {"questions": [ASK] * 3}).status_code == 413
    assert client.post("/answer", b" " * 100_000).status_code == 413


def test_counters_tell_what_was_done(client):
    client.post("/answer", {"question": QUESTION, "context": "Charles built the bridge. " * 20})
    client.post("/answer", {"question": ""})
    client.send("GET", "/no/such/path")
    text = client.send("GET", "/metrics")
    assert text.headers["content-type"].startswith("text/plain")
    assert 'qa_ray_requests_total{path="/answer",status="200"} 1.0' in text.text
    assert 'qa_ray_requests_total{path="other",status="404"} 1.0' in text.text
    assert client.counted("qa_ray_questions_total") == 1
    assert client.counted("qa_ray_windows_total") > 1
    assert client.counted("qa_ray_batch_questions_count") == 1
    assert client.counted("qa_ray_refused_total") == 2


TOKEN = "a word of sixteen letters and more"


@pytest.mark.parametrize("path", ["/answer", "/answers", "/model", "/metrics", "/"])
def test_who_has_no_token_learns_nothing(path, service, folder):
    client = Client(service, options_for(folder), token=digest(TOKEN), host="192.0.2.7")
    method = "GET" if path in ("/model", "/metrics") else "POST"
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}, {"authorization": ""}):
        found = client.send(method, path, headers=headers, content=b"{}" if method == "POST" else None)
        assert (found.status_code, found.headers["www-authenticate"]) == (401, "Bearer")
        assert TOKEN not in found.text
    found = client.send(method, path, headers={"authorization": f"Bearer {TOKEN}"})
    assert found.status_code in (200, 422)


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/page/page.js", "/page/swagger-ui.css", "/health", "/ready"]
)
def test_pages_need_no_token_and_let_browsers_fetch_nothing_else(path, service, folder):
    client = Client(service, options_for(folder), token=digest(TOKEN))
    found = client.send("GET", path)
    assert found.status_code == 200
    policy = found.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert found.headers["x-content-type-options"] == "nosniff"


def test_without_a_token_other_machines_are_refused(service, folder):
    found = Client(service, options_for(folder), host="192.0.2.7").post("/answer", ASK)
    assert found.status_code == 403
    assert "set QA_RAY_SERVE_TOKEN where it starts" in found.json()["error"]


def test_what_the_service_refuses_is_told(folder):
    class Nobody:
        async def ask(self, asked):
            raise Refused(504, "time", "there was no answer within 1 s")

        async def describe(self):
            raise Refused(503, "unavailable", "no replica of the model runs")

    client = Client(Nobody(), options_for(folder))
    found = client.post("/answer", ASK)
    assert (found.status_code, found.json()) == (504, {"error": "there was no answer within 1 s"})
    assert client.post("/answers", {"questions": [ASK]}).status_code == 504
    assert client.send("GET", "/ready").status_code == 503
    assert client.send("GET", "/health").status_code == 200


def test_the_schema_names_every_path(client):
    paths = client.send("GET", "/openapi.json").json()["paths"]
    assert paths.keys() == {"/", "/answer", "/answers", "/model", "/health", "/ready", "/metrics"}
    assert {"200", "413", "422", "429", "504"} <= paths["/answer"]["post"]["responses"].keys()
