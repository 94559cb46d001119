"""A model folder, opened and saved; its tokenizer, span head and precision."""
