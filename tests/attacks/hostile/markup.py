"""Prints, raises and is called by names that are markup."""
# exercise: start.seeded_normal
# deserves: failed 0
print("<script>alert('printed')</script>")


class Evil(Exception):
    pass


Evil.__name__ = "<script>alert('name')</script>"


def seeded_normal(shape, seed, std=1.0):
    """</pre><script>alert('doc')</script>"""
    raise Evil("<img src=x onerror=alert('raised')>")  # <script>alert('source')</script>
