"""Data in: files and Hub data sets to passages, tokens, windows and batches."""
