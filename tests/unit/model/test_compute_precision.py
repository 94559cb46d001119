import os
import subprocess
import sys

import pytest
import torch

from qa_ray.config.policies import Precision
from qa_ray.errors import ConfigError
from qa_ray.model.compute import accelerate_name, choose_precision, common_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, Precision.BF16),
        ({"avx512_bf16": False, "amx_bf16": True}, Precision.BF16),
        ({"bf16": True}, Precision.BF16),
        ({"avx512_bf16": False, "amx_bf16": False, "avx2": True, "avx512_f": True}, Precision.FP32),
        ({}, Precision.FP32),
    ],
    ids=["avx512", "amx", "arm", "none", "unknown"],
)
def test_auto_on_a_cpu_is_bf16_only_with_instructions_for_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert choose_precision(Precision.AUTO, CPU) is expected


def test_auto_on_a_cpu_that_is_kept_from_its_bf16_is_fp32():
    code = (
        "import torch; from qa_ray.model.compute import *; print(choose_precision(Precision.AUTO, torch.device('cpu')))"
    )
    kept = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}  # read once, when torch is imported
    said = subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "fp32"


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 0), Precision.FP16), ((7, 5), Precision.FP16), ((8, 0), Precision.BF16), ((9, 0), Precision.BF16)],
    ids=["V100", "T4", "A100", "H100"],
)
def test_auto_on_a_gpu_is_bf16_from_ampere_on(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision(Precision.AUTO, GPU) is expected


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(ConfigError, match=r"train\.precision=fp16 needs a GPU: use bf16 or fp32"):
        choose_precision(Precision.FP16, CPU)


@pytest.mark.parametrize("wanted", [Precision.FP32, Precision.BF16, Precision.FP16])
def test_precision_that_was_asked_for_is_taken(wanted):
    assert choose_precision(wanted, GPU) is wanted


def test_accelerate_knows_every_precision():
    from accelerate.utils import PrecisionType

    names = [accelerate_name(precision) for precision in Precision if precision is not Precision.AUTO]
    assert names == ["no", "bf16", "fp16"]
    assert set(names) <= set(PrecisionType.list())


@pytest.mark.parametrize(
    ("chosen", "keep", "expected"),
    [
        ([Precision.BF16, Precision.BF16], None, Precision.BF16),
        ([Precision.BF16, Precision.FP16], None, Precision.FP16),
        ([Precision.FP32, Precision.BF16], None, Precision.FP32),
        ([Precision.BF16, Precision.BF16], Precision.FP16, Precision.FP16),
        ([Precision.BF16, Precision.BF16], Precision.FP32, Precision.FP32),
        ([Precision.BF16, Precision.FP16], Precision.BF16, Precision.FP16),
        ([Precision.FP32], Precision.FP16, Precision.FP32),
        ([Precision.FP32], Precision.BF16, Precision.FP32),
    ],
    ids=["alike", "T4 and A100", "CPUs", "newer GPUs", "was fp32", "older GPU", "no GPU any more", "older CPU"],
)
def test_workers_compute_in_what_all_have_and_keep_to_it(chosen, keep, expected):
    assert common_precision(chosen, keep) is expected
