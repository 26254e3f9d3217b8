"""The errors this room shows to people: one sentence each, that says what and what to do."""


class StoreError(RuntimeError):
    """Something the store or its catalog cannot do; one sentence that says what and what to do."""


class StoreAccessError(StoreError, OSError):
    """What the system or a server refuses to read or write: what it says, and what to do."""

    def __init__(self, sentence: str, reason: str = "", advice: str = "") -> None:
        super().__init__(sentence)
        self.reason = reason
        self.advice = advice

    @property
    def complaint(self) -> str:
        """What cannot be done and why, without what to do and without a full stop."""
        return str(self).removesuffix(".").removesuffix(self.advice).rstrip(" :;,")

    def __reduce__(self) -> tuple[type["StoreAccessError"], tuple[str, str, str]]:
        return type(self), (str(self), self.reason, self.advice)


class StoreUnavailableError(StoreAccessError):
    """A refusal that may pass: a full disk, a store that is gone or cannot be reached now."""


class ArtifactLostError(StoreError):
    """An artifact that is read and is not there, or damaged; `reason` says so, without a subject.

    A find of it by the same store then finds nothing.
    """

    def __init__(self, kind: str, key: str, reason: str) -> None:
        super().__init__(f"{kind} {key} {reason}: run the grid again to build it.")
        self.kind = kind
        self.key = key
        self.reason = reason

    def __reduce__(self) -> tuple[type["ArtifactLostError"], tuple[str, str, str]]:
        return type(self), (self.kind, self.key, self.reason)
