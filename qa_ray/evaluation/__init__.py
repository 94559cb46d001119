"""From logits to answers, and from answers to scores."""
