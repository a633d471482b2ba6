"""The command line that all recipes share."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from .errors import RecipeError


def run(what: str, build: Callable[[Path, Path, Path], None], arguments: list[str] | None = None) -> int:
    """Call `build` with the inputs' list, the output and a scratch folder, which is removed. Returns the exit status.

    `what` is built, for --help. A RecipeError is shown as one line.
    """
    parser = argparse.ArgumentParser(description=f"Build {what}.")
    parser.add_argument("--inputs", type=Path, required=True, help="JSON: file name -> path of each verified input")
    parser.add_argument("--output", type=Path, required=True, help="the file to write")
    parser.add_argument("--work", type=Path, help="scratch folder (default: beside the output)")
    options = parser.parse_args(arguments)
    base = options.work or options.output.parent
    try:
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=base, ignore_cleanup_errors=True) as work:
            build(options.inputs, options.output, Path(work).resolve())
    except RecipeError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0
