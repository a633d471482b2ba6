"""Pages of the documentation that are written from a catalogue: see tests/obstacles/catalogue.py and
tests/signatures.py."""

from __future__ import annotations

import textwrap


def section(title: str, *paragraphs: str) -> str:
    """A section of a page."""
    return "\n\n".join([f"## {title}", *map(wrapped, paragraphs)]) + "\n"


def wrapped(text: str) -> str:
    """A paragraph in lines of at most 120 characters; a block of code as it is."""
    return text if text.startswith("    ") else textwrap.fill(text, 120, break_on_hyphens=False, break_long_words=False)
