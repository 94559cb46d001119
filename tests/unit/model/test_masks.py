"""What the host knows of a batch's padding changes no logit, and nobody looks at the mask for it."""

from typing import Any

import numpy as np
import pytest
import torch
from device_waits import waits
from families import FAMILIES
from small_runs import made_passages, make_collator, tiny_config

from qa_ray.data.collate import Batch
from qa_ray.model.compute import forward
from qa_ray.model.loading import load_model

SDPA = [name for name in FAMILIES if "untrimmed" not in name and name not in ("deberta", "xlnet")]


def batches_of(config: Any) -> dict[str, Batch]:
    """A batch of windows of unequal lengths, and one in which nothing is padded."""
    collator = make_collator(config, made_passages(5, num_words=(30, 40)))
    full = np.flatnonzero(collator.windows.length == config.window.max_length)
    found = {"padded": collator(np.arange(len(collator.windows))), "not padded": collator(full)}
    assert [batch.padded for batch in found.values()] == [True, False]
    return found


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", SDPA)
def test_logits_are_those_of_the_model_that_looks_at_the_mask(saved: Any, family: str, attention: str) -> None:
    config = tiny_config(saved(family), model={"attention": attention})
    model = load_model(config.model).eval()
    for batch in batches_of(config).values():
        with torch.no_grad(), waits() as found:
            ours = forward(model, batch)
        assert not found
        with torch.no_grad(), waits() as found:
            theirs = model(**batch.inputs)
        # Decoders have a mask in any case where they compute eagerly.
        assert found or attention == "eager", "nobody looks any more: all of this is superfluous"
        kept = batch.inputs["attention_mask"].bool()
        assert torch.equal(ours.start[kept], theirs.start_logits[kept])
        assert torch.equal(ours.end[kept], theirs.end_logits[kept])


def test_attention_has_no_mask_where_nothing_is_padded(bert: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[bool] = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def noting(*arguments: Any, attn_mask: Any = None, **named: Any) -> Any:
        masks.append(attn_mask is not None)
        return attend(*arguments, attn_mask=attn_mask, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noting)
    config = tiny_config(bert, model={"attention": "sdpa"})
    model = load_model(config.model).eval()
    for name, batch in batches_of(config).items():
        masks.clear()
        forward(model, batch)
        assert masks == [name == "padded"] * 2, "two layers"
