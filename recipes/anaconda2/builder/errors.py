"""The one exception that ends a build with a sentence instead of a traceback."""

from __future__ import annotations


class RecipeError(Exception):
    """The build cannot go on; the message names the cause and the remedy."""
