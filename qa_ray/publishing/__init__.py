"""From a run's folder to a model repository on the Hugging Face Hub."""
