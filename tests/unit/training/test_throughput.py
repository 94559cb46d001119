import time

import pytest
import torch
from families import FAMILIES
from small_runs import tiny_config

from qa_ray.model.loading import load_model
from qa_ray.training.throughput import Meter, flops_per_token, peak_flops


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA A10", 125e12),
        ("Tesla T4", 65e12),
        ("Tesla V100-SXM2-16GB", 125e12),
        ("NVIDIA L40", None),
        ("NVIDIA A10G", None),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA T400 4GB", None),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_peak_is_that_of_the_gpu_of_exactly_this_name(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda")) == peak


def test_cpu_has_no_peak():
    assert peak_flops(torch.device("cpu")) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_flops_are_those_of_the_matrices_and_the_attention(saved, family):
    model = load_model(tiny_config(saved(family)).model)
    embeddings = {m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    weights = sum(weight.numel() for weight in model.parameters() if weight not in embeddings)
    assert flops_per_token(model, 100.0) == 6 * weights + 12 * 2 * 32 * 100


@pytest.fixture
def clock(monkeypatch):
    """The time now, in a list of one, to be set."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_meter_sums_micro_batches():
    meter = Meter(torch.zeros(()))
    meter.count(torch.tensor(1.5, requires_grad=True), windows=2, tokens=10, padded_tokens=16)
    meter.count(torch.tensor(2.0), windows=3, tokens=20, padded_tokens=24)
    assert meter.totals().tolist() == [3.5, 5, 30, 40]
    assert meter.totals().dtype == torch.float64
    assert not meter.loss.requires_grad


def test_meter_forgets_what_was_read(clock):
    meter = Meter(torch.zeros(()), since=clock[0])
    meter.count(torch.tensor(1.5), windows=2, tokens=10, padded_tokens=16)
    clock[0] = 103.0
    assert meter.restart() == 3.0
    assert meter.totals().tolist() == [0, 0, 0, 0]
    clock[0] = 105.0
    assert meter.restart() == 2.0


def test_meter_leaves_out_the_time_of_an_evaluation(clock):
    meter = Meter(torch.zeros(()), since=clock[0])
    clock[0] = 103.0
    meter.stop_clock()
    clock[0] = 150.0
    assert meter.elapsed == 3.0
    meter.start_clock()
    clock[0] = 151.0
    assert meter.elapsed == 4.0
    assert meter.restart() == 4.0


def test_restored_meter_goes_on_with_work_and_time(clock):
    meter = Meter(torch.zeros(()), since=clock[0])
    meter.count(torch.tensor(1.5), windows=2, tokens=10, padded_tokens=16)
    clock[0] = 103.0
    totals, seconds = meter.totals(), meter.elapsed
    clock[0] = 900.0
    later = Meter(torch.zeros(()))
    later.restore(totals, seconds)
    assert later.totals().tolist() == [1.5, 2, 10, 16]
    later.start_clock()
    clock[0] = 902.0
    assert later.restart() == 5.0
