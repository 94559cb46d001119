"""The errors that a user can cause and mend: the command line prints them without a traceback."""


class UserError(Exception):
    """Something the user asked for cannot be done; the message says what, where, and what to do."""


class ConfigError(UserError, ValueError):
    """A configuration field has a value that cannot work."""


class DataError(UserError):
    """A data set cannot be read, or has rows that cannot be used."""


class ModelError(UserError):
    """A model or a tokenizer cannot be loaded or used."""


class StorageError(UserError):
    """The run's storage cannot be read or written, or the run exists already."""


class ClusterError(UserError):
    """The Ray cluster has not what the run asks for."""


class TrainingError(UserError):
    """Training cannot go on: the loss or a gradient is no longer a finite number."""
