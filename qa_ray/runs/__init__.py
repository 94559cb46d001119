"""One training run on Ray Train, from preparation to result."""
