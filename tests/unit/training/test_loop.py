import math
import os
import shutil

import numpy as np
import pytest
import torch
from small_runs import (
    changed,
    cpu_accelerator,
    made_passages,
    make_collator,
    make_run,
    poison,
    scaling_accelerator,
    tiny_config,
    weights_of,
)
from torch._dynamo.utils import counters
from torch.optim.optimizer import register_optimizer_step_pre_hook

from qa_ray.data.batching import num_steps, padded_length, plan_epoch
from qa_ray.errors import ConfigError, TrainingError
from qa_ray.tracking.metrics import (
    GRAD_NORM,
    LEARNING_RATE,
    PADDING_SHARE,
    SKIPPED_STEPS,
    TOKENS_PER_SECOND,
    TRAIN_LOSS,
    WINDOWS_PER_SECOND,
)
from qa_ray.training.evaluator import Evaluator


def gradients_of(config, passages):
    """The gradients of each optimizer step, step after step."""
    steps = []

    def keep(optimizer, args, kwargs):
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        steps.append(torch.cat([weight.grad.flatten() for weight in weights]).clone())

    handle = register_optimizer_step_pre_hook(keep)
    try:
        run = make_run(config, passages).train()
    finally:
        handle.remove()
    return run, steps


def test_model_learns_a_handful_of_questions_by_heart(bert):
    config = tiny_config(bert, optim={"learning_rate": 5e-3}, train={"epochs": 60}, window={"max_length": 64})
    passages = made_passages(8)
    run = make_run(config, passages).train()
    evaluate = Evaluator(make_collator(config, passages), config.evaluate, no_answer=False)
    metrics = evaluate(run.loop.model, cpu_accelerator()).metrics
    assert metrics["exact_match"] == 100
    assert run.metric(TRAIN_LOSS)[-1] < 0.1


def test_same_seed_gives_the_same_weights_bit_for_bit(bert):
    config = tiny_config(bert, model={"dropout": 0.3})
    first, second = (make_run(config, made_passages(9)).train() for _ in range(2))
    assert first.metric(TRAIN_LOSS) == second.metric(TRAIN_LOSS)
    assert torch.equal(weights_of(first), weights_of(second))


def test_the_seed_alone_draws_dropout_and_order(bert):
    config = tiny_config(bert, model={"dropout": 0.3}, batch={"size": 9}, train={"max_steps": 1})
    # A batch that holds everything: only dropout differs.
    losses = [
        make_run(changed(config, train={"seed": seed}), made_passages(3)).train().metric(TRAIN_LOSS)
        for seed in (1, 2, 1)
    ]
    assert losses[0] != losses[1]
    assert losses[0] == losses[2]


def test_loss_and_gradient_are_those_of_the_mean_over_the_batch(bert):
    config = tiny_config(bert, train={"max_steps": 1})
    collator = make_collator(config, made_passages(9))
    run = make_run(config, [], collator=collator)
    batch = next(plan_epoch(collator.windows.length, config.batch, seed=config.train.seed, epoch=0).batches())
    tensors = collator(batch)
    outputs = run.model(**tensors.inputs)
    expected = []
    for row, (start, end) in enumerate(zip(tensors.start_positions, tensors.end_positions, strict=True)):
        kept = tensors.inputs["attention_mask"][row].bool()
        for logits, place in ((outputs.start_logits[row], start), (outputs.end_logits[row], end)):
            expected.append(torch.logsumexp(logits[kept], 0) - logits[place])
    loss = torch.stack(expected).mean()
    gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(run.model.parameters()))])
    run.train()
    assert run.metric(TRAIN_LOSS) == pytest.approx([loss.item()], rel=1e-5)
    assert run.metric(GRAD_NORM) == pytest.approx([gradient.norm().item()], rel=1e-4)


def test_micro_batches_give_the_gradient_of_the_whole_batch(bert):
    config = tiny_config(bert, train={"max_steps": 3}, batch={"size": 8}, optim={"max_grad_norm": 0.0, "eps": 1.0})
    passages = made_passages(12)
    whole, expected = gradients_of(config, passages)
    split = changed(config, batch={"max_tokens_per_device": 40})
    parts, found = gradients_of(split, passages)
    assert parts.metric(PADDING_SHARE) != whole.metric(PADDING_SHARE), "nothing was split"
    assert parts.metric(TRAIN_LOSS) == pytest.approx(whole.metric(TRAIN_LOSS), rel=1e-5)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", ["bert", "deberta", "modernbert", "gpt2", "llama"])
def test_gradient_checkpointing_changes_neither_loss_nor_gradient(saved, family):
    config = tiny_config(saved(family), train={"max_steps": 2})
    checkpointed = changed(config, train={"gradient_checkpointing": True})
    kept, computed_twice = (gradients_of(c, made_passages(8)) for c in (config, checkpointed))
    assert any(getattr(module, "gradient_checkpointing", False) for module in computed_twice[0].model.modules())
    assert computed_twice[0].metric(TRAIN_LOSS) == pytest.approx(kept[0].metric(TRAIN_LOSS), rel=1e-5)
    for ours, theirs in zip(computed_twice[1], kept[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_model_without_gradient_checkpointing_refuses_it_in_words(saved):
    config = tiny_config(saved("xlnet"), train={"gradient_checkpointing": True})
    with pytest.raises(ConfigError, match=r"train\.gradient_checkpointing: XLNetForQuestionAnsweringSimple"):
        make_run(config, made_passages(4))


@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler (on Debian: apt-get install g++)"
)
def test_compiled_model_trains_as_the_plain_one_and_is_compiled_once_for_all_lengths(bert):
    # Adam turns a gradient of nothing but rounding into a whole step, unless eps is far above the rounding.
    config = tiny_config(bert, train={"max_steps": 2}, optim={"eps": 1e-2, "learning_rate": 1e-2})
    passages = made_passages(9, num_words=(3, 20))

    def train(config):
        # One layer, for compiling takes long.
        return make_run(config, passages, before=lambda model: model.bert.encoder.layer.pop(1)).train()

    torch.compiler.reset()
    counters.clear()
    plain = train(config)
    assert not counters["stats"]
    compiled = train(changed(config, train={"compile": True}))
    assert counters["stats"]["unique_graphs"] == 1
    assert compiled.metric(TRAIN_LOSS) == pytest.approx(plain.metric(TRAIN_LOSS), rel=1e-4)
    torch.testing.assert_close(weights_of(compiled), weights_of(plain), rtol=0, atol=1e-5)
    plan = plan_epoch(plain.collator.windows.length, config.batch, seed=config.train.seed, epoch=0)
    shapes = [plain.collator(batch).inputs["input_ids"].shape for batch in plan.batches()][:2]
    assert shapes[0] != shapes[1], "a model that is compiled for one length needs no other"


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_loss_that_is_not_finite_stops_the_run_with_step_epoch_and_questions(bert, precision):
    config = tiny_config(bert, train={"epochs": 4})
    collator = make_collator(config, made_passages(9))
    run = make_run(config, [], collator=collator, accelerator=cpu_accelerator(precision))
    run.loop.train_epoch()
    good_steps = run.loop.state.step
    poison(run.model)
    with pytest.raises(TrainingError) as raised:
        run.loop.train_epoch()
    assert run.loop.state.step == good_steps + 1
    assert f"at step {good_steps + 1}, epoch 1: " in str(raised.value)
    batch = next(plan_epoch(collator.windows.length, config.batch, seed=config.train.seed, epoch=1).batches())
    for window in batch:
        assert collator.corpus.id(collator.windows.question[window]) in str(raised.value)
    assert "optim.learning_rate" in str(raised.value)


def test_last_step_is_checked_too(bert):
    run = make_run(tiny_config(bert, train={"max_steps": 1}), made_passages(4), before=poison)
    with pytest.raises(TrainingError, match="at step 1, epoch 0"):
        run.loop.train_epoch()


def test_scaler_that_overflows_skips_the_step_and_halts_the_schedule(bert):
    config = tiny_config(bert, train={"epochs": 6}, optim={"warmup_ratio": 0.0})
    run = make_run(config, made_passages(9), accelerator=scaling_accelerator(2.0**127))
    before = weights_of(run)
    run.loop.train_epoch(lambda: True)
    assert torch.equal(weights_of(run), before)
    run.train()
    skipped = run.metric(SKIPPED_STEPS)
    assert run.loop.state.skipped_steps == skipped[-1] > 1
    assert np.all(np.diff([0, *skipped]) >= 0)
    assert not torch.equal(weights_of(run), before)
    made = run.loop.state.step - run.loop.state.skipped_steps
    expected = config.optim.learning_rate * (1 - made / run.loop.num_steps)
    assert run.metric(LEARNING_RATE)[-1] == pytest.approx(expected)
    assert all(math.isfinite(loss) for loss in run.metric(TRAIN_LOSS))


def test_scaler_that_never_recovers_stops_the_run(bert):
    config = tiny_config(bert, train={"epochs": 60})
    accelerator = scaling_accelerator(2.0)
    run = make_run(config, made_passages(4), accelerator=accelerator, before=poison)
    with pytest.raises(TrainingError, match=r"gradient scaler skipped 40 steps in a row.*q\d"):
        run.train()


def test_gradients_are_scaled_down_to_the_allowed_norm(bert):
    limit = 0.05
    config = tiny_config(bert, optim={"max_grad_norm": limit}, train={"max_steps": 3})
    run, gradients = gradients_of(config, made_passages(9))
    assert [gradient.norm().item() for gradient in gradients] == pytest.approx([limit] * 3, rel=1e-4)
    # The record shows the norm before clipping.
    assert min(run.metric(GRAD_NORM)) > limit


def test_clipping_at_zero_is_off(bert):
    config = tiny_config(bert, optim={"max_grad_norm": 0.0}, train={"max_steps": 3})
    run, gradients = gradients_of(config, made_passages(9))
    assert [gradient.norm().item() for gradient in gradients] == pytest.approx(run.metric(GRAD_NORM), rel=1e-4)
    assert min(run.metric(GRAD_NORM)) > 0.05


def test_records_count_up_to_the_last_step(bert):
    config = tiny_config(bert)
    collator = make_collator(config, made_passages(9))
    # The last step is recorded out of turn.
    every = num_steps(len(collator.windows), config) - 1
    config = changed(config, train={"log_every": every})
    run = make_run(config, [], collator=collator).train()
    done = [record.done for record in run.records]
    num_batches = -(-len(collator.windows) // 4)
    assert run.loop.num_steps == 2 * num_batches
    assert done == sorted(done)
    assert done[-1] == run.records[-1].total == run.loop.num_steps
    assert all(record.phase == "train" and record.step == record.done for record in run.records)
    with_metrics = [record for record in run.records if record.metrics]
    assert [record.done for record in with_metrics] == [every, every + 1]
    keys = {TRAIN_LOSS, LEARNING_RATE, GRAD_NORM, WINDOWS_PER_SECOND, TOKENS_PER_SECOND, PADDING_SHARE}
    assert all(set(record.metrics) == keys for record in with_metrics)
    assert run.loop.state.windows == 2 * len(collator.windows)


def test_loss_record_covers_all_windows_since_the_last_record_across_epochs(bert):
    passages = made_passages(9)
    every = make_run(tiny_config(bert), passages).train()
    config = tiny_config(bert, train={"log_every": every.loop.num_steps})
    once = make_run(config, passages).train()
    windows = len(make_collator(config, passages).windows)
    sizes = np.array([4] * (windows // 4) + ([windows % 4] if windows % 4 else []))
    weights = np.tile(sizes, 2)
    assert len([record for record in once.records if record.metrics]) == 1
    expected = np.average(every.metric(TRAIN_LOSS), weights=weights)
    assert once.records[-1].metrics[TRAIN_LOSS] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("max_tokens", [None, 48])
def test_padding_share_is_that_of_the_plan(bert, max_tokens):
    config = tiny_config(bert, batch={"max_tokens_per_device": max_tokens}, train={"epochs": 1})
    collator = make_collator(config, made_passages(9))
    run = make_run(config, [], collator=collator).train()
    lengths = collator.windows.length
    expected = []
    for batch in plan_epoch(lengths, config.batch, seed=config.train.seed, epoch=0).batches():
        longest_first, padded = np.sort(lengths[batch])[::-1], 0
        while len(longest_first):
            width = padded_length(int(longest_first[0]), 8, 32)
            taken = len(longest_first) if max_tokens is None else max(1, max_tokens // width)
            padded += width * len(longest_first[:taken])
            longest_first = longest_first[taken:]
        expected.append(1 - lengths[batch].sum() / padded)
    assert run.metric(PADDING_SHARE) == pytest.approx(expected)


def test_max_steps_ends_the_run_in_mid_epoch(bert):
    run = make_run(tiny_config(bert, train={"epochs": 5, "max_steps": 4}), made_passages(9)).train()
    assert run.loop.state.step == run.loop.num_steps == 4
