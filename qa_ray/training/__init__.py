"""The training loop, and what runs it on a Ray cluster."""
