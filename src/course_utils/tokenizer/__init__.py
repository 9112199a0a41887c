"""Text to numbers and back: byte-level BPE from scratch, and the fast one behind one interface."""
