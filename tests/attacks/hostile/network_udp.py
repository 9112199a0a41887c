"""Asks somebody else for the answer by UDP."""
# exercise: start.seeded_normal
# deserves: forbidden 0
import socket


def seeded_normal(shape, seed, std=1.0):
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"solution?", ("127.0.0.1", {UDP}))
    except OSError:
        pass
    return torch.zeros(shape)
