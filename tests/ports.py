"""Ports for servers that are started again at the same address."""

from __future__ import annotations

import random
import socket

PORTS = range(12_000, 32_000)
"""Below those that Linux gives to whoever asks for any: while a server is down, no connection and
no other server gets its port."""
_dice = random.SystemRandom()


def free_port() -> int:
    """A port of this machine that nobody uses, and nobody gets by chance."""
    while True:
        port = _dice.choice(PORTS)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
