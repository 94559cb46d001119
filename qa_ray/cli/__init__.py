"""The command line: `qa-ray COMMAND ...`, which the scripts in jobs/ call too."""
