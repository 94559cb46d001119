"""The service's paths: the page, the API, and what machines ask of it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

import qa_ray
from qa_ray.serving.guard import Guard
from qa_ray.serving.messages import (
    Answer,
    Answers,
    Health,
    ManyAnswers,
    ModelInfo,
    Problem,
    Question,
    Questions,
    TaskInput,
    Window,
)
from qa_ray.serving.metrics import ServiceMetrics
from qa_ray.serving.options import ServeOptions
from qa_ray.serving.service import Asked, Refused, Reply, Service

_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_SHOWN_PROBLEMS = 5
_LONGEST_PROBLEM = 300
_BYTES_PER_CHARACTER = 12
"""The most that JSON takes for one, as two escapes."""
_OTHER_BYTES = 64_000
_WORDS = {
    400: "the body is no JSON in UTF-8",
    404: "there is nothing at this path: /docs lists those that there are",
    405: "this path takes another method: /docs says which",
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "It is no JSON."},
    401: {"model": Problem, "description": "The token is missing or wrong."},
    413: {"model": Problem, "description": "The texts are too long."},
    422: {"model": Problem, "description": "A field is missing or has a value that cannot be."},
    429: {"model": Problem, "description": "Too many requests wait: try again."},
    504: {"model": Problem, "description": "It took too long."},
}


def make_app(service: Service, options: ServeOptions, metrics: ServiceMetrics, token_digest: str | None) -> Guard:
    """The application, behind its guard; `service` answers."""
    app = FastAPI(
        title="qa_ray",
        version=qa_ray.__version__,
        summary="Answers questions from texts: each answer is a span of its text.",
        docs_url=None,
        redoc_url=None,
    )
    _answer_errors(app, metrics)
    _add_questions(app, service, options, metrics)
    _add_facts(app, service, metrics)
    _add_page(app)
    paths = {route.path for route in app.routes if hasattr(route, "path")}
    return Guard(
        app,
        token_digest=token_digest,
        max_bytes=options.max_characters * _BYTES_PER_CHARACTER + _OTHER_BYTES,
        timeout_s=options.timeout_s,
        metrics=metrics,
        route_of=lambda path: path if path in paths else "other",
    )


class _Admission:
    """Counts the questions that are answered or wait, and refuses more than so many at once."""

    def __init__(self, most: int, metrics: ServiceMetrics) -> None:
        self._most = most
        self._metrics = metrics
        self._taken = 0

    @contextmanager
    def of(self, number: int) -> Iterator[None]:
        """Let so many questions in for as long as the context lasts."""
        if self._taken + number > self._most:
            words = f"{self._taken} questions are answered or wait, of at most {self._most}: try again in a moment"
            raise Refused(429, "busy", words)
        self._count(number)
        try:
            yield
        finally:
            self._count(-number)

    def _count(self, more: int) -> None:
        self._taken += more
        self._metrics.waiting.set(self._taken)


def _add_questions(app: FastAPI, service: Service, options: ServeOptions, metrics: ServiceMetrics) -> None:
    """The paths that answer."""
    admission = _Admission(options.max_waiting, metrics)
    most = min(options.max_questions, options.max_waiting)

    async def ask(asked: Asked, num_characters: int) -> Reply:
        if num_characters > options.max_characters:
            words = f"{num_characters:,} characters of the {options.max_characters:,} that are taken"
            raise Refused(413, "characters", f"question and texts have {words}")
        reply = await service.ask(asked)
        metrics.questions.inc()
        metrics.windows.inc(reply.num_windows)
        if reply.batch:
            metrics.batch_questions.observe(reply.batch.num_questions)
            metrics.batch_tokens.observe(reply.batch.num_tokens)
        return reply

    async def answers(question: Question) -> Answers:
        asked = Asked(question.question, question.texts, question.settings(), question.windows)
        return _shown(await ask(asked, question.num_characters))

    @app.post("/answer", summary="Answer a question", responses=_REFUSALS, response_model_exclude_unset=True)
    async def answer(question: Question) -> Answers:
        """Answer a question from a text, or from several together."""
        with admission.of(1):
            return await answers(question)

    @app.post("/answers", summary="Answer several questions", responses=_REFUSALS, response_model_exclude_unset=True)
    async def many(questions: Questions) -> ManyAnswers:
        """Answer questions one by one; one that cannot be answered does not stop the others."""
        number = len(questions.questions)
        if number > most:
            raise Refused(413, "questions", f"there are {number} questions, of the {most} that are taken")

        async def settled(question: Question) -> Answers | Problem:
            try:
                return await answers(question)
            except Refused as refused:
                if refused.status >= 429:
                    raise
                return Problem(error=refused.message)

        with admission.of(number):
            return ManyAnswers(results=await asyncio.gather(*map(settled, questions.questions)))

    @app.post("/", summary="Answer as Hugging Face's clients ask", responses=_REFUSALS)
    async def task(given: TaskInput) -> Answer | list[Answer]:
        """Answer what `InferenceClient(model=ADDRESS).question_answering(...)` sends."""
        settings = given.parameters.model_dump(exclude_none=True) if given.parameters else {}
        pair = given.inputs
        asked = Asked(pair.question, pair.context, settings, windows=False)
        with admission.of(1):
            found = (await ask(asked, len(pair.question) + len(pair.context))).answers
        return found if settings.get("top_k", 1) > 1 else found[0]


def _shown(reply: Reply) -> Answers:
    shown = Answers(answers=reply.answers, model=reply.model, version=reply.version)
    if reply.windows is not None:
        shown["windows"] = [Window(context=place, start=start, end=end) for place, start, end in reply.windows]
    return shown


def _add_facts(app: FastAPI, service: Service, metrics: ServiceMetrics) -> None:
    """What tells of the service."""

    @app.get("/model", summary="The model that answers", responses={503: {"model": Problem}})
    async def model() -> ModelInfo:
        """Its name, version, scores and window."""
        return cast(ModelInfo, await service.describe())

    @app.get("/health", summary="Whether the service runs")
    async def health() -> Health:
        """Answers as long as it does."""
        return Health(status="ok")

    @app.get("/ready", summary="Whether a model answers", responses={503: {"model": Problem}})
    async def ready() -> Health:
        """Answers with 503 where none does."""
        await service.describe()
        return Health(status="ok")

    @app.get("/metrics", summary="Counters, as Prometheus reads them", response_class=Response)
    async def counters() -> Response:
        """Requests, seconds, questions, windows, batches, refusals."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI) -> None:
    """The page, and that of the API; Swagger UI's files come from a package, not from another server."""
    own, swagger = files("qa_ray.serving").joinpath("page"), files("fastapi_offline").joinpath("static")
    _send(app, "/", own.joinpath("index.html"))
    _send(app, "/docs", own.joinpath("docs.html"))
    for folder, names in (
        (own, ("page.css", "page.js", "docs.js")),
        (swagger, ("swagger-ui.css", "swagger-ui-bundle.js")),
    ):
        for name in names:
            _send(app, f"/page/{name}", folder.joinpath(name))


def _send(app: FastAPI, path: str, file: Traversable) -> None:
    content, kind = file.read_bytes(), _KINDS[file.name.rpartition(".")[2]]

    @app.get(path, include_in_schema=False)
    async def send() -> Response:
        return Response(content, media_type=f"{kind}; charset=utf-8")


def _answer_errors(app: FastAPI, metrics: ServiceMetrics) -> None:
    """Say in words what was wrong."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        metrics.refused.labels(error.reason).inc()
        headers = {"retry-after": "1"} if error.status in (429, 503) else None
        return JSONResponse({"error": error.message}, error.status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        metrics.refused.labels("invalid").inc()
        broken = any(problem["type"] == "json_invalid" for problem in error.errors())
        words = _WORDS[400] if broken else "; ".join(map(_worded, error.errors()[:_SHOWN_PROBLEMS]))
        return JSONResponse({"error": words}, 400 if broken else 422)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        metrics.refused.labels("http").inc()
        words = _WORDS.get(error.status_code, str(error.detail))
        return JSONResponse({"error": words}, error.status_code, error.headers)


def _worded(problem: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in problem["loc"] if part != "body")
    words = f"{where or 'body'}: {problem['msg'].removeprefix('Value error, ')}"
    return words if len(words) <= _LONGEST_PROBLEM else f"{words[:_LONGEST_PROBLEM]} ..."
