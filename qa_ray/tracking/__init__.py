"""What is recorded of a run, and MLflow, which keeps it."""
