"""The Trainer and everything that one of its steps runs through."""
