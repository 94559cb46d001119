"""What a run would make of its data: read, validated, tokenised and cut as for training, of which nothing starts."""
