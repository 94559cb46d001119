"""Search over the fields of a configuration: spaces, samplers, trials on Ray Tune, and what a sweep has to show."""
