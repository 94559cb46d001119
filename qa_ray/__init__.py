"""Fine-tune, evaluate and serve extractive question-answering models on a Ray cluster."""

__version__ = "0.1.0"
