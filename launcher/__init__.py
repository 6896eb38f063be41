"""What run.py is made of: the environment, the two services, the ports. Standard library only."""


class Problem(Exception):
    """Something the user can mend; the message says how."""
