"""A run's folder and its checkpoints, on any filesystem."""
