"""The two ways in which the harness itself can fail."""


class HarnessError(Exception):
    """What failed and why, in one line."""


class MissingPrerequisite(HarnessError):
    """The machine lacks something, named in the message: a skip, not a failure."""
