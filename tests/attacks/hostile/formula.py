"""Raises an error that a spreadsheet would take for a formula."""
# exercise: start.seeded_normal
# deserves: failed 0
def seeded_normal(shape, seed, std=1.0):
    raise ValueError("=HYPERLINK(\"http://example.com\", A1)")
