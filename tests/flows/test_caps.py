"""With how many examples at a time stages begin, where memory ran out before."""

from __future__ import annotations

from flows.caps import Caps

KIND, OTHER = ("shard", "ioi"), ("shard", "sva")


def test_stages_alike_begin_with_what_fitted_and_try_more_after_a_while():
    caps = Caps()
    assert caps.of(KIND) is None
    caps.learn(KIND, None, None)  # it needed no cap
    assert caps.of(KIND) is None
    caps.learn(KIND, None, 16)
    assert (caps.of(KIND), caps.of(OTHER)) == (16, None)
    caps.learn(KIND, 16, 4)
    for n in (4, 8, 16):
        for _ in range(9):
            assert caps.of(KIND) == n
            caps.learn(KIND, n, n)
    assert caps.of(KIND) == 32
    caps.learn(KIND, 32, 8)  # too many: from there again
    assert caps.of(KIND) == 8
    for _ in range(8):
        caps.learn(KIND, 8, 8)
    assert caps.of(KIND) == 8


def test_a_cap_that_is_larger_than_anything_is_none():
    caps = Caps()
    caps.learn(KIND, None, 40_000)
    for _ in range(9):
        assert caps.of(KIND) == 40_000
        caps.learn(KIND, 40_000, 40_000)
    assert caps.of(KIND) is None
