"""The training loop and its state, without Ray."""
