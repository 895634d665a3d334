"""The errors that a user can mend. Entry points print them as one line, without a stack trace."""


class UserError(Exception):
    """What is wrong, where, and what to do about it."""


class OptionsError(UserError):
    """One or more faults of an option file; the message has a line for each."""


class DataError(UserError):
    """A missing, unreadable or unpaired image, or a folder that is not laid out as announced."""


class CheckpointError(UserError):
    """Weights or a training state that cannot be read, or that belong to something else."""


class Stopped(Exception):
    """A run was asked to stop by a signal. The message is the signal's name."""
