"""From answers to scores, their intervals, slices, and comparisons of models."""
