"""Asks somebody else for the answer by TCP."""
# exercise: start.seeded_normal
# deserves: forbidden 0
import socket


def seeded_normal(shape, seed, std=1.0):
    try:
        with socket.create_connection(("127.0.0.1", {TCP}), timeout=1) as out:
            out.sendall(b"solution?")
    except OSError:
        pass
    return torch.zeros(shape)
