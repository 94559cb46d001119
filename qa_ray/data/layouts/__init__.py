"""The layouts of data files: each is a function from a file to its rows."""
