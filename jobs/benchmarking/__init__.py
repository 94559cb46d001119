"""The cases of jobs/benchmark.py, and the standard way that they are measured against."""
