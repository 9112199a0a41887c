"""Asks somebody else for the answer by DNS."""
# exercise: start.seeded_normal
# deserves: forbidden 0
import socket


def seeded_normal(shape, seed, std=1.0):
    try:
        socket.getaddrinfo("solution.example.com", 80)
    except OSError:
        pass
    return torch.zeros(shape)
