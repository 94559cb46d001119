"""Publish a run's model on the Hugging Face Hub: staged with a model card, loaded back, then pushed."""

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, get_token
from safetensors import SafetensorError
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from qa_ray.config.fine_tuning import Config, ModelConfig
from qa_ray.config.operation import PublishOptions
from qa_ray.errors import PublishError, require
from qa_ray.locations import SECRET_RULE, check_repo_id, holds_secret, holds_token
from qa_ray.model.loading import check_model, learn_template, load_settings, load_tokenizer
from qa_ray.publishing.hub import MAIN, HubRepository
from qa_ray.publishing.model_card import benchmark_entry, make_card
from qa_ray.publishing.run_record import RunRecord
from qa_ray.storage.run_folder import MODEL, RunFolder

logger = logging.getLogger(__name__)

# Weights are safetensors only: whatever else lies in the folder stays there.
_ENDINGS = frozenset({".safetensors", ".json", ".txt", ".model", ".jinja"})
_CODE = ".py"
_PROBES = ("Who laid the first stone?", "When was the bridge finished?")
_CONTEXT = "Charles IV laid the first stone of the bridge in 1357; it was finished in 1402."


def run_at(location: str) -> RunFolder:
    """The run whose folder is at a path or URI, which may end with a query (?endpoint_override=...).

    Raises:
        ConfigError: the URI holds a secret.
        StorageError: the storage cannot be read.
        PublishError: nothing is there.
    """
    require(not holds_secret(location), f"RUN {SECRET_RULE}")
    run = RunFolder.at(location)
    if not run.exists():
        raise PublishError(f"there is no run {run.uri}: name its folder, such as runs/NAME")
    return run


def warn_without_token() -> None:
    """Say so early where there is no token for the Hub: at the end of training it would be needed."""
    try:
        _token()
    except PublishError as error:
        logger.warning("%s; the run goes on, but its model cannot be published until then", error)


def publish_after(work: Callable[[], tuple[str, str]], config: Config) -> str:
    """Do what makes a run and, if a repository is named, publish it; returns what is to be shown.

    Args:
        work: returns what is to be shown of it, and the run's folder.
        config: where the model goes, and whether its own code may run.

    Raises:
        UserError: what `work` raises, or why the model was not published.
    """
    if config.publish.repo_id is None:
        return work()[0]
    warn_without_token()
    shown, folder = work()
    # Whatever becomes of the publication, this is worth knowing.
    print(shown)
    url = publish(run_at(folder), config.publish, trust_remote_code=config.model.trust_remote_code)
    return f"\npublished {url}"


def publish(
    run: RunFolder, options: PublishOptions, step: int | None = None, *, trust_remote_code: bool = False
) -> str:
    """Push a run's model, tokenizer, answer settings and model card to the Hub; returns the commit's URL.

    A model that is there already, unchanged, is not committed again. The run itself is only read.

    Args:
        run: its folder.
        options: where the model goes.
        step: of the evaluated checkpoint that goes there, untagged, while training goes on; without it, the model of
            the finished run.
        trust_remote_code: run Python code that comes with the model. What the run's own record says of it does not
            count: whoever wrote the folder wrote that too.

    Raises:
        ModelError: the model brings code that may not run, or cannot be opened.
        PublishError: something that the user can mend; what was not published stays in the run's folder.
        StorageError: the run cannot be read.
        ConfigError: the run's name cannot name a repository.
    """
    try:
        return _publish(run, options, step, trust_remote_code)
    except PublishError as error:
        if step is not None:
            raise  # there is no finished run yet to publish later
        command = f"qa-ray publish '{run.uri}'" + (f" --repo-id {options.repo_id}" if options.repo_id else "")
        command += " --trust-remote-code" * trust_remote_code
        raise PublishError(f"{error}. The model stays in {run.uri}; publish it later with: {command}") from None


def _publish(run: RunFolder, options: PublishOptions, step: int | None, trust_remote_code: bool) -> str:
    token = _token()
    record = RunRecord.read(run, step)
    _refuse_secrets(record.settings(), "the run's config.json")
    if options.repo_id is None:
        check_repo_id(run.name, "--repo-id is not given, and the run's name")
    _check_benchmark(options, record)
    with run.local(f"{record.place}{MODEL}") as model, tempfile.TemporaryDirectory(prefix="qa_ray-publish-") as staged:
        folder = Path(staged)
        source = ModelConfig(name=str(model), trust_remote_code=trust_remote_code)
        check_model(source, load_tokenizer(source))
        _stage(model, folder, remote_code=trust_remote_code)
        _check_loads_alike(model, folder, record, trust_remote_code)
        repository = HubRepository(options.repo_id or run.name, token)
        template = learn_template(load_tokenizer(source), load_settings(source))
        card = _write_card(folder, record, repository.repo_id, options, context_first=template.context_first)
        _check_no_secrets(folder, token)
        repository.check_card(card)
        branch = options.revision or MAIN
        repository.make(private=options.private, branch=branch)
        logger.info("uploading to %s", repository.repo_id)
        commit = repository.push(folder, branch, f"Model of the run {run.name}, step {record.step}")
    if options.tag and step is None:
        repository.tag(options.tag, commit)
    return str(commit.commit_url)


def _token() -> str:
    token = get_token()
    if token is None:
        raise PublishError("there is no token for the Hub: set HF_TOKEN in the environment, or run `hf auth login`")
    return token


def _check_benchmark(options: PublishOptions, record: RunRecord) -> None:
    data = record.config["data"]
    if options.benchmark_task and (data["hub"] is None or data["max_validation_examples"] is not None):
        raise PublishError(
            f"{options.option('benchmark_task')} is for a model that was measured on a whole split of a Hub data set "
            "(data.hub, without data.max_validation_examples): leave it out"
        )


def _stage(model: Path, folder: Path, *, remote_code: bool) -> None:
    endings = _ENDINGS | {_CODE} if remote_code else _ENDINGS
    try:
        for path in sorted(model.iterdir()):
            if path.is_file() and path.suffix in endings and not path.name.startswith("."):
                shutil.copyfile(path, folder / path.name)
    except OSError as error:
        raise PublishError(f"the model cannot be copied to {folder}: {error.strerror}; TMPDIR names another") from error


def _write_card(
    folder: Path, record: RunRecord, repo_id: str, options: PublishOptions, *, context_first: bool
) -> ModelCard:
    card = make_card(
        record,
        repo_id,
        revision=options.revision,
        license=options.license,
        context_first=context_first,
    )
    card.save(folder / "README.md")
    if options.benchmark_task:
        entry = folder / ".eval_results" / "qa_ray.yaml"
        entry.parent.mkdir()
        entry.write_text(benchmark_entry(record, options.benchmark_task), encoding="utf-8")
    return card


def _check_loads_alike(model: Path, staged: Path, record: RunRecord, trust_remote_code: bool) -> None:
    """Refuse a staged folder that does not open, or gives other logits than the run's own model."""
    questions = [*_PROBES, *record.questions[:2]]
    try:
        own, copied = (_logits(folder, questions, trust_remote_code=trust_remote_code) for folder in (model, staged))
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise PublishError(f"the model cannot be opened again, so nobody could use it: {reason}") from error
    if not all(torch.equal(left, right) for left, right in zip(own, copied, strict=True)):
        raise PublishError("the staged model gives other logits than the run's own: the copy is damaged, try again")


@torch.no_grad()
def _logits(folder: Path, questions: Sequence[str], *, trust_remote_code: bool) -> list[torch.Tensor]:
    """Start and end logits of each question about a fixed context, [2, length], on the CPU."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    model = AutoModelForQuestionAnswering.from_pretrained(
        folder,
        trust_remote_code=trust_remote_code,
        local_files_only=True,
        use_safetensors=True,
        dtype=torch.float32,
    ).eval()
    found = []
    for question in questions:
        outputs = model(**tokenizer(question, _CONTEXT, return_tensors="pt"))
        found.append(torch.cat([outputs.start_logits, outputs.end_logits]))
    return found


def _check_no_secrets(folder: Path, token: str) -> None:
    """Refuse to push the token, or a location with a password, in any of the folder's texts."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.suffix == ".safetensors":
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if token in text or holds_token(text):
            raise PublishError(f"{path.name} holds a token, which nobody may see: take it out of the run")
        if path.name.endswith("config.json"):
            _refuse_secrets(_strings(json.loads(text)), path.name)


def _strings(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, name)
    else:
        yield name, value


def _refuse_secrets(fields: Iterator[tuple[str, Any]], source: str) -> None:
    for name, value in fields:
        if isinstance(value, str) and holds_secret(value):
            raise PublishError(
                f"{source}: {name} holds a password or a key, which nobody may see: take it out of there"
            )
