"""The parts of run.py: the environment, the two services, the ports. They use the standard library only."""


class Problem(Exception):
    """An error that the user can fix; the message says how."""
