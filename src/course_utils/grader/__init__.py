"""Grading submissions: `autograde` reads, judges and reports; `sandbox` runs learners' code."""
