#!/usr/bin/env python3
"""The catalogue of what a training's log shows, files/training_signatures.yml, and docs/training-signatures.md, which
this program writes anew."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.catalogue_pages import section  # noqa: E402

FILE = ROOT / "files/training_signatures.yml"
PAGE = ROOT / "docs/training-signatures.md"
INTRODUCTION = """\
<!-- Written by tests/signatures.py from files/training_signatures.yml: edit that. -->
# What goes wrong in training

What Detectron says when a training or a test fails, diverges or stands still, and what to do then. The watch of a run
finds these in its log and shows the line; each stands here with an example of such lines. How a training is set up so
that most of them cannot happen: [training.md](training.md).
"""


def catalogue() -> list[dict[str, Any]]:
    """All signatures, in the order of the file."""
    return list(yaml.safe_load(FILE.read_text())["signatures"])


def page() -> str:
    """The text of docs/training-signatures.md."""
    return "\n".join([INTRODUCTION, *map(section_of, catalogue())])


def section_of(signature: dict[str, Any]) -> str:
    """A signature as a section of the page."""
    kind = f"`{signature['id']}`: {'the run is over' if signature['severity'] == 'fatal' else 'a warning'}."
    if measured := signature.get("measured"):
        kind += f" {'Also shown' if 'patterns' in signature else 'Shown'} by {measured}."
    example = [example_of(signature["log"])] if "patterns" in signature else []
    return section(signature["title"], *example, signature["cause"], signature["remedy"], kind)


def example_of(log: str) -> str:
    """Lines of a log as a block of code, long ones continued with more indentation."""
    lines = [textwrap.wrap(line, 112, subsequent_indent="    ", break_on_hyphens=False) for line in log.splitlines()]
    return "\n".join(f"    {part}" for parts in lines for part in parts)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
