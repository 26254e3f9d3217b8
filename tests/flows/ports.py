"""Ports of this machine for servers that bind them later, or again."""

import socket
from contextlib import closing
from random import SystemRandom

_BELOW_THE_PASSING_ONES = range(20_000, 30_000)  # from which no system picks a port by itself


def free_port() -> int:
    """A port that nobody has now, and that no connection is given by the system later."""
    while True:
        port = SystemRandom().choice(_BELOW_THE_PASSING_ONES)
        with closing(socket.socket()) as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
