"""What is done with a model before it is trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import cpu_accelerator, made_passages, make_run, tiny_config

from qa_ray.errors import ConfigError
from qa_ray.training import wrapping


@pytest.mark.parametrize(("precision", "dtype"), [("no", None), ("bf16", torch.bfloat16)])
def test_unused_weights_are_looked_for_in_the_precision_of_the_run(
    bert: Path, monkeypatch: pytest.MonkeyPatch, precision: str, dtype: Any
) -> None:
    """Flash attention computes in no other."""
    seen: list[Any] = []
    freeze = wrapping.freeze_unused

    def look(model: Any, batch: Any) -> int:
        seen.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
        return freeze(model, batch)

    monkeypatch.setattr(wrapping, "freeze_unused", look)
    make_run(tiny_config(bert), made_passages(4), accelerator=cpu_accelerator(precision))
    assert seen == [dtype]


def test_kernel_that_does_not_compute_in_fp32_is_refused_in_words(bert: Path) -> None:
    def choose(model: Any) -> None:
        model.config._attn_implementation = "flash_attention_2"  # whose package is not there

    with pytest.raises(ConfigError, match=r"model\.attention=flash_attention_2 computes only in bf16 and fp16"):
        make_run(tiny_config(bert), made_passages(4), before=choose)


def test_gradients_are_not_copied_between_ranks_buckets_and_weights(bert: Path) -> None:
    accelerator = cpu_accelerator()
    make_run(tiny_config(bert), made_passages(4), accelerator=accelerator)
    handler = accelerator.ddp_handler.to_kwargs()
    assert handler == {"broadcast_buffers": False, "gradient_as_bucket_view": True}


@pytest.mark.parametrize(
    ("precision", "named", "kernel"),
    [("bf16", None, "eager"), ("bf16", "sdpa", "sdpa"), ("no", None, "sdpa")],
    ids=["bf16", "bf16, as named", "fp32"],
)
def test_kernel_is_the_one_that_is_named_or_the_faster_one(
    bert: Path, precision: str, named: str | None, kernel: str
) -> None:
    config = tiny_config(bert, model={"attention": named})
    run = make_run(config, made_passages(4), accelerator=cpu_accelerator(precision))
    assert {module.config._attn_implementation for module in run.model.modules() if hasattr(module, "config")} == {
        kernel
    }
