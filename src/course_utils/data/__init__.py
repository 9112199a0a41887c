"""Data sets by name: find, fetch, verify, load."""
