import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from families import FAMILIES
from small_runs import made_passages, make_collator, make_run, tiny_config

from qa_ray.config.policies import Precision
from qa_ray.model.compute import accelerate_name, choose_precision
from qa_ray.runs.worker import make_accelerator
from qa_ray.tracking.metrics import LEARNING_RATE, SKIPPED_STEPS, TRAIN_LOSS
from qa_ray.training.evaluator import Evaluator

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def gpu_accelerator(precision):
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(mixed_precision=accelerate_name(precision))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    FAMILIES["bert"].save(folder)
    return folder


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16, Precision.FP16])
def test_loss_falls_in_every_precision(bert, precision):
    config = tiny_config(bert, train={"epochs": 30, "precision": precision}, optim={"learning_rate": 3e-3})
    passages = made_passages(8)
    accelerator = gpu_accelerator(precision)
    run = make_run(config, passages, accelerator=accelerator).train()
    losses = run.metric(TRAIN_LOSS)
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] / 2
    assert {weight.dtype for weight in run.model.parameters()} == {torch.float32}
    result = Evaluator(make_collator(config, passages), config.evaluate, no_answer=False)(run.loop.model, accelerator)
    assert result.metrics["loss"] < losses[0]


def test_overflow_in_fp16_skips_the_step_and_is_counted(bert):
    config = tiny_config(bert, train={"epochs": 8, "precision": Precision.FP16}, optim={"warmup_ratio": 0.0})
    accelerator = gpu_accelerator(Precision.FP16)
    accelerator.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**40, backoff_factor=2.0**-8)
    run = make_run(config, made_passages(9), accelerator=accelerator).train()
    skipped = run.metric(SKIPPED_STEPS)
    assert 0 < run.loop.state.skipped_steps == skipped[-1] < run.loop.num_steps
    rate = config.optim.learning_rate
    assert run.metric(LEARNING_RATE)[-1] == pytest.approx(rate * skipped[-1] / run.loop.num_steps)


def test_auto_is_what_this_gpu_computes_in():
    device = torch.device("cuda")
    expected = Precision.BF16 if torch.cuda.get_device_capability(device)[0] >= 8 else Precision.FP16
    assert choose_precision(Precision.AUTO, device) is expected


@pytest.mark.parametrize("tf32", [False, True])
def test_fp32_is_rounded_to_tf32_only_where_that_is_asked_for(bert, tf32):
    if torch.cuda.get_device_capability()[0] < 8:
        pytest.skip("this GPU has no TF32")
    AcceleratorState._reset_state(reset_partial_state=True)
    make_accelerator(tiny_config(bert, train={"tf32": tf32}), use_gpu=True)
    matrix = torch.full((256, 256), 1 + 2.0**-12, device="cuda")  # of which TF32 keeps the 1
    assert ((matrix @ matrix.T)[0, 0].item() == 256) is tf32
