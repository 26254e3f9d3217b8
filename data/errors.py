"""The errors this room shows to people: one sentence each, that says what and what to do."""


class StoreError(RuntimeError):
    """Something the store or its catalog cannot do; one sentence that says what and what to do."""


class StoreAccessError(StoreError, OSError):
    """What the system or a server refuses to read or write: what it says, and what to do."""

    def __init__(self, sentence: str, reason: str = "", advice: str = "") -> None:
        super().__init__(sentence)
        self.reason = reason
        self.advice = advice

    def __reduce__(self) -> tuple[type["StoreAccessError"], tuple[str, str, str]]:
        return type(self), (str(self), self.reason, self.advice)


class StoreUnavailableError(StoreAccessError):
    """A refusal that may pass: a full disk, a store that is gone or cannot be reached now."""
