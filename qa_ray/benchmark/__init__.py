"""The benchmark: each part of qa_ray timed against the standard way."""
