"""Build an Anaconda2-compatible installer from Debian's CPython 2.7 and PyPI's conda (see ../README.md)."""
