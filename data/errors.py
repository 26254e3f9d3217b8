"""The one error this room shows to people."""


class StoreError(RuntimeError):
    """Something the store or its catalog cannot do; one sentence that says what and what to do."""
