"""The one error this room shows to people."""


class GridError(ValueError):
    """What is wrong with a grid or a command, in sentences that name the place and the way out."""
