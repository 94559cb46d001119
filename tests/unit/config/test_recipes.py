import pytest
from small_runs import changed, cpu_accelerator, made_passages, make_collator, make_run
from transformers import AutoTokenizer

from qa_ray.config.policies import NoAnswer, Precision
from qa_ray.config.recipes import RECIPES
from qa_ray.model.folder import save_model
from qa_ray.model.loading import check_model, check_window, load_tokenizer
from qa_ray.training.evaluator import Evaluator

# The tiny model that stands for each recipe's own. A new recipe needs a line here.
FAMILY_OF = {
    "sample": "bert",
    "minilm": "bert",
    "bert_base_squad": "bert-cased",
    "bert_base_squad_v2": "bert",
    "bert_large_squad": "bert",
    "distilbert_squad": "distilbert",
    "roberta_base_squad": "roberta",
    "roberta_base_squad_v2": "roberta",
    "xlnet_base_squad_v2": "xlnet",
    "deberta_v3_base_squad_v2": "deberta",
    "modernbert_base_squad": "modernbert",
}


def test_every_recipe_has_a_tiny_model_to_be_tried_with():
    assert FAMILY_OF.keys() == RECIPES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_trains_evaluates_and_saves_a_model(name, saved, tmp_path):
    recipe = RECIPES[name]()
    folder = saved(FAMILY_OF[name])
    shrunk = {"max_length": 64, "stride": min(recipe.window.stride, 16)}
    limit = recipe.batch.max_tokens_per_device
    batch = {"size": 4, "max_tokens_per_device": None if limit is None else 100}
    config = changed(recipe, model={"name": str(folder)}, window=shrunk, batch=batch)
    config = changed(config, train={"precision": Precision.FP32})
    tokenizer = load_tokenizer(config.model)
    check_window(config.model, tokenizer, recipe.window.max_length)
    check_model(config.model, tokenizer)
    no_answer = config.evaluate.no_answer is not NoAnswer.NEVER and "v2" in name
    passages = made_passages(10, unanswerable=3 if no_answer else 0)

    run = make_run(config, passages)
    collator = make_collator(config, passages)
    evaluate = Evaluator(collator, config.evaluate, no_answer=no_answer)
    num_epochs = 0
    while not run.loop.finished:
        run.loop.train_epoch()
        num_epochs += 1
        result = evaluate(run.loop.model, cpu_accelerator())
        assert str(config.evaluate.best_by) in result.metrics
    assert num_epochs == recipe.train.epochs
    assert run.records[-1].done == run.loop.num_steps
    save_model(tmp_path, run.model, tokenizer, config, result.metrics.get("threshold"))
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == len(tokenizer)


def test_recipes_compute_in_what_the_hardware_has_but_for_the_classic_whose_scores_rest_on_fp16():
    fixed = {name: recipe().train.precision for name, recipe in RECIPES.items()}
    assert {name: one for name, one in fixed.items() if one is not Precision.AUTO} == {
        "bert_base_squad": Precision.FP16
    }
    assert {recipe().model.attention for recipe in RECIPES.values()} == {None}
