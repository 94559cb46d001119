"""The evaluation job: a model's scores on any data set, measured on a Ray cluster."""
