"""Makes the embedded sample of its facts and templates."""
