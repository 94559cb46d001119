"""A fine-tuned model as a service on Ray Serve: a page, an API, and a champion that changes while it answers."""
