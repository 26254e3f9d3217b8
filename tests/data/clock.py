"""A clock that is set by hand: time passes where a test says so, however long its steps take."""


class Clock:
    """The seconds since it was made; it counts how often it was asked."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return self.seconds
