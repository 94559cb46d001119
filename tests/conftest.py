"""Settings for all tests: property tests try the same examples each time and are never failed for being slow."""

import os

from hypothesis import HealthCheck, settings

# Before transformers and huggingface_hub are imported, which read it once.
os.environ["HF_HUB_OFFLINE"] = "1"
# The tokenizer's own threads only get in each other's way with texts this short.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")
