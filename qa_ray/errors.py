"""The errors that a user can cause and mend: the command line prints them without a traceback."""


class UserError(Exception):
    """Something the user asked for cannot be done; the message says what, where, and what to do."""


class ConfigError(UserError, ValueError):
    """A configuration field has a value that cannot work."""


def require(holds: bool, rule: str) -> None:
    """Raise a ConfigError that says `rule`, unless it holds."""
    if not holds:
        raise ConfigError(rule)


class DataError(UserError, ValueError):
    """A data set cannot be read, or has rows that cannot be used; so it is with the inputs of an answerer."""


class ModelError(UserError):
    """A model or a tokenizer cannot be loaded or used."""


class StorageError(UserError):
    """The run's storage cannot be read or written, or the run exists already."""


class ClusterError(UserError):
    """The Ray cluster has not what the run asks for."""


class TrainingError(UserError):
    """Training cannot go on: the loss or a gradient is no longer a finite number."""


class WorkerLostError(TrainingError):
    """Worker processes were lost too often; the same run may well succeed another time."""


class PublishError(UserError):
    """A model cannot be published: its run lacks something, or the Hub cannot be reached or refuses it."""


class WorkerError(Exception):
    """A worker met an error that nobody foresaw, and that would come again; the message holds its traceback."""


class StoppedError(Exception):
    """A run was stopped by a signal, after a checkpoint; the message says how to go on.

    Attributes:
        exit_code: what the shell expects of a process that the signal ended.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
