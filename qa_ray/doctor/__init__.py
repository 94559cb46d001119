"""What a training run would need, looked for on every node of the cluster before it starts."""
