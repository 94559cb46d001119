"""The embedded data set: short passages about real entities with questions on them, in SQuAD v2.0 form."""
