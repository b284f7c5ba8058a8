"""Error of this package."""


class EnvironmentProblem(Exception):
    """An environment cannot be created or checked; the message names what to do."""
