"""What a run or a sweep computes from, besides its configuration: it goes on only with what it was begun with."""

import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from qa_ray.config.fine_tuning import Config
from qa_ray.data.pipeline import Split
from qa_ray.data.template import Template
from qa_ray.errors import DataError
from qa_ray.storage.run_folder import FINGERPRINT, RunFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """Both splits, and what the tokenizer made of them."""

    train: str
    """Digest of the training questions, see `Split`."""
    validation: str
    """The same of the validation questions."""
    train_tokens: str
    validation_tokens: str
    template: dict[str, Any]
    """How windows are put together, as JSON knows it."""

    @classmethod
    def of(cls, train: Split, validation: Split, template: Template) -> Self:
        """That of two tokenised splits, and the layout of their windows."""
        return cls(
            train=train.digest,
            validation=validation.digest,
            train_tokens=train.token_digest,
            validation_tokens=validation.token_digest,
            template=json.loads(json.dumps(dataclasses.asdict(template))),
        )

    def changes(self, before: "Fingerprint", config: Config) -> Iterator[str]:
        """Yield in words what has changed since `before`; `config` names where it was read."""
        data, model = config.data, config.model
        tokenizer_changed = self.template != before.template
        for name in ("train", "validation"):
            if getattr(self, name) != getattr(before, name):
                field = data.field_of(name)
                source = f" of data.hub={data.hub}" if data.hub else ""
                yield f"data.{field}={getattr(data, field)}{source} holds other questions, contexts or answers"
            else:
                # Of other texts a tokenizer makes other tokens.
                tokenizer_changed |= getattr(self, f"{name}_tokens") != getattr(before, f"{name}_tokens")
        if tokenizer_changed:
            place = f"model.tokenizer={model.tokenizer}" if model.tokenizer else f"model.name={model.name}"
            yield f"the tokenizer of {place} makes other tokens of the same texts"


def hold_to(folder: RunFolder, uses: Sequence[tuple[Config, Fingerprint]], *, begun: bool) -> None:
    """Refuse other data, or another tokenizer, than a run or a sweep was begun with; of a new one they are kept.

    Args:
        folder: the run's or the sweep's.
        uses: what is there now, with the configuration that names it: one of a run, in one order those of a sweep.
        begun: whether anything was computed before.

    Raises:
        DataError: something has changed; the message says what, and what to do.
    """
    recorded = folder.read(FINGERPRINT) if begun else None
    if recorded is None:
        if begun:
            logger.warning(
                "%s was begun before data had fingerprints: whether they have changed is not known", folder.name
            )
        lines = [json.dumps(dataclasses.asdict(found)) + "\n" for _, found in uses]
        folder.write(FINGERPRINT, "".join(lines).encode())
        return
    known = [Fingerprint(**json.loads(line)) for line in recorded.splitlines()]
    pairs = zip(uses, known, strict=True)
    changes = dict.fromkeys(text for (config, now), before in pairs for text in now.changes(before, config))
    if changes:
        raise DataError(
            f"what run.name={folder.name} was begun with has changed: {'; '.join(changes)}. Bring back what was there "
            "to go on, or choose another run.name to begin anew"
        )
