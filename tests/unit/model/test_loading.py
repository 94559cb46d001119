import logging
import shutil

import pytest
import torch
from families import FAMILIES
from small_runs import changed, cpu_accelerator, made_passages, make_collator, make_run, tiny_config
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoTokenizer,
)

from qa_ray.config.fine_tuning import ModelConfig
from qa_ray.model.compute import forward, freeze_unused, span_loss
from qa_ray.model.folder import save_model
from qa_ray.model.loading import check_model, check_window, count_weights, load_model, load_tokenizer
from qa_ray.training.evaluator import Evaluator

every_family = pytest.mark.parametrize("family", FAMILIES)


def config_of(folder, **fields):
    return ModelConfig(name=str(folder), **fields)


def copy_of(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def logits_of(model, batch):
    model.eval()
    with torch.no_grad():
        return forward(model, batch)


def said(caplog):
    """What the package said in the log; transformers says much more."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("qa_ray")]


@every_family
def test_family_is_trained_evaluated_saved_and_opened_by_transformers(saved, family, tmp_path):
    config = tiny_config(saved(family), window={"max_length": 96, "stride": 16}, train={"max_steps": 3})
    tokenizer = load_tokenizer(config.model)
    check_window(config.model, tokenizer, config.window.max_length)
    check_model(config.model, tokenizer)
    passages = made_passages(8, unanswerable=2)
    run = make_run(config, passages)
    before = [weight.detach().clone() for weight in run.model.parameters()]
    run.train()
    assert any(not torch.equal(*pair) for pair in zip(before, run.model.parameters(), strict=True))
    collator = make_collator(config, passages)
    result = Evaluator(collator, config.evaluate, no_answer=True)(run.loop.model, cpu_accelerator())
    save_model(tmp_path, run.model, tokenizer, config, result.metrics["threshold"])

    assert {"model.safetensors", "config.json", "tokenizer.json", "qa_ray.json"} <= {f.name for f in tmp_path.iterdir()}
    assert not [file for file in tmp_path.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".pkl", ".pickle")]
    opened, report = AutoModelForQuestionAnswering.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    batch = collator(collator.windows.question[:1])
    for ours, theirs in zip(logits_of(run.model, batch), logits_of(opened, batch), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for name, weight in run.model.state_dict().items():
        assert torch.equal(weight, opened.state_dict()[name])
    pair = ("Which river ?", "The river Vltava flows through Prague")
    assert AutoTokenizer.from_pretrained(tmp_path)(*pair).input_ids == tokenizer(*pair).input_ids


def test_roberta_with_a_tokenizer_of_two_types_is_trained(tmp_path):
    tokenizer = FAMILIES["bert"].tokenizer()
    settings = FAMILIES["roberta"].config()
    settings.update({"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id})
    AutoModelForQuestionAnswering.from_config(settings).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    config = tiny_config(tmp_path / "model", model={"tokenizer": str(tmp_path / "tokenizer")}, train={"max_steps": 1})
    check_model(config.model, load_tokenizer(config.model))
    assert make_run(config, made_passages(4)).train().loop.state.step == 1


@every_family
def test_padding_further_changes_neither_logits_nor_loss(saved, family):
    config = tiny_config(saved(family), window={"max_length": 256})
    model = load_model(config.model).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith(("qa_outputs", "classifier")):
                weight.mul_(30)
    passages = made_passages(5)
    found = []
    for multiple in (1, 128):
        collator = make_collator(changed(config, batch={"pad_to_multiple_of": multiple}), passages)
        batch = collator(collator.windows.question)
        with torch.no_grad():
            logits = forward(model, batch)
        kept = batch.inputs["attention_mask"].bool()
        for scores in logits:
            assert torch.isneginf(scores[~kept]).all()
        found.append((kept.shape[1], [scores[kept] for scores in logits], span_loss(logits, batch)))
    (short, tight, loss), (long, padded, padded_loss) = found
    assert long > short
    assert loss > 1
    torch.testing.assert_close(padded, tight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(padded_loss, loss, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("family", "frozen"), [("bert", []), ("xlnet", ["transformer.mask_emb"]), ("gpt2", [])])
def test_only_weights_that_no_logit_depends_on_are_frozen(saved, family, frozen):
    config = tiny_config(saved(family))
    model, collator = load_model(config.model), make_collator(config, made_passages(2))
    assert freeze_unused(model, collator(collator.windows.question[:1])) == len(frozen)
    assert [name for name, weight in model.named_parameters() if not weight.requires_grad] == frozen
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize(("family", "kernel"), [("bert", "sdpa"), ("llama", "sdpa"), ("deberta", "eager")])
def test_kernel_of_attention_is_sdpa_where_the_model_has_it(saved, family, kernel):
    assert load_model(config_of(saved(family))).config._attn_implementation == kernel


@pytest.mark.parametrize("family", ["bert", "deberta", "xlnet", "modernbert", "gpt2", "distilbert"])
def test_dropout_override_reaches_every_dropout_layer(saved, family):
    model = load_model(config_of(saved(family), dropout=0.37))
    rates = [layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)]
    assert rates
    assert set(rates) == {0.37}


def test_dropout_of_the_model_stays_without_an_override(bert):
    rates = [layer.p for layer in load_model(config_of(bert)).modules() if isinstance(layer, torch.nn.Dropout)]
    assert set(rates) == {FAMILIES["bert"].config().hidden_dropout_prob}


@pytest.mark.parametrize("kind", [AutoModel, AutoModelForMaskedLM])
def test_new_head_is_said_in_the_log(kind, tmp_path, caplog):
    pretrained = kind.from_config(FAMILIES["bert"].config())
    pretrained.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, "qa_ray"):
        model = load_model(config_of(tmp_path))
    assert said(caplog) == [f"{tmp_path} has no question-answering head: a new one is trained from scratch"]
    ours, theirs = model.bert.encoder.state_dict(), pretrained.base_model.encoder.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_fine_tuned_model_gives_no_message_about_its_head(bert, caplog):
    with caplog.at_level(logging.INFO, "qa_ray"):
        load_model(config_of(bert))
    assert not said(caplog)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", [AutoModel, AutoModelForCausalLM])
def test_decoder_keeps_its_pretrained_weights(family, kind, tmp_path, caplog):
    pretrained = kind.from_config(FAMILIES[family].config())
    pretrained.save_pretrained(tmp_path / "pretrained")
    with caplog.at_level(logging.INFO, "qa_ray"):
        model = load_model(config_of(tmp_path / "pretrained"))
    assert [message.partition(" has no ")[2][:23] for message in said(caplog)] == ["question-answering head"]
    ours, theirs = model.base_model.state_dict(), pretrained.base_model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    model.save_pretrained(tmp_path / "saved")
    again = load_model(config_of(tmp_path / "saved"))
    assert all(torch.equal(again.state_dict()[name], weight) for name, weight in model.state_dict().items())


@pytest.mark.parametrize(
    ("family", "states"), [("gpt2", "past_key_values"), ("llama", "past_key_values"), ("xlnet", "mems")]
)
def test_no_states_are_kept_for_text_to_come(saved, family, states):
    config = tiny_config(saved(family))
    batch = make_collator(config, made_passages(1))(torch.zeros(1, dtype=torch.long).numpy())
    outputs = load_model(config.model).eval()(**batch.inputs)
    assert outputs.get(states) is None


def test_weights_are_loaded_as_fp32(bert, tmp_path):
    AutoModelForQuestionAnswering.from_pretrained(bert, dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert {weight.dtype for weight in load_model(config_of(tmp_path)).parameters()} == {torch.float32}


def test_some_missing_weights_are_said_in_the_log(bert, tmp_path, caplog):
    folder = copy_of(bert, tmp_path)
    model = AutoModelForQuestionAnswering.from_pretrained(folder)
    kept = {name: weight for name, weight in model.state_dict().items() if "layer.1.output" not in name}
    model.save_pretrained(folder, state_dict=kept)
    load_model(config_of(folder))
    assert [message.partition(" lacks ")[2] for message in said(caplog)] == [
        "4 tensors, such as bert.encoder.layer.1.output.LayerNorm.bias: they start at random"
    ]


@pytest.mark.parametrize("family", ["bert", "xlnet"])
def test_weights_are_counted_without_loading_them(family, saved):
    config = ModelConfig(name=str(saved(family)))
    assert count_weights(config) == sum(weight.numel() for weight in load_model(config).parameters())
