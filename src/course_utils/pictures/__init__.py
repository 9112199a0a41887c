"""Plots and drawings, one module per subject; only lessons and the command line import them."""
