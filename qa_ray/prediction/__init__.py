"""Batch answering: questions of any number from files to files, in parts, on a Ray cluster."""
