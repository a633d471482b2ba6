#!/usr/bin/env python3
"""The catalogue of obstacles, files/obstacles.yml, and docs/obstacles.md, which this program writes anew."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "plugins/filter")]

import preflight  # noqa: E402  the findings, which the doctor shows too

from tests.catalogue_pages import section  # noqa: E402

FILE = ROOT / "files/obstacles.yml"
PAGE = ROOT / "docs/obstacles.md"
INTRODUCTION = """\
<!-- Written by tests/obstacles/catalogue.py from files/obstacles.yml and plugins/filter/preflight.py: edit those. -->
# Obstacles

What keeps a Detectron from working on a server, by what programs say, and what this project does about it. Each is a
scene of `make obstacles` and of `make test`: on a throwaway server it fails without us, with the very text that stands
here, and then passes with us. Where an [id](preflight.md) is named, preflight and the [doctor](doctor.md) show it when
it can be seen on a server.

The account in which all this is played, and in which `site.yml` has installed the stack before, is a bad one itself:
its login shell is a csh that prints, its umask 077, its HOME read-only and full of settings for other software, and the
prefix on another disk.
"""
FINDINGS = {check.id: check for check in preflight.CATALOGUE}


@dataclasses.dataclass(frozen=True)
class Obstacle:
    """One entry of the catalogue, which describes its fields."""

    id: str
    title: str
    error: str
    cause: str
    remedy: str
    where: Mapping[str, str]
    without: str
    with_: str
    finding: str = ""
    simulated: str = ""
    given: str = ""
    play: tuple[str, ...] = ()

    @staticmethod
    def of(entry: Mapping[str, Any]) -> Obstacle:
        """From an entry of the file. What a finding says is not said again in it."""
        fields = {"with_" if name == "with" else name: value for name, value in entry.items()}
        if "finding" in fields:
            finding = FINDINGS[fields["finding"]]
            fields = {"cause": finding.cause, "remedy": finding.remedy} | fields
        return Obstacle(**fields | {"play": tuple(fields.get("play", ()))})


def catalogue() -> list[Obstacle]:
    """All obstacles, in the order of the file."""
    return [Obstacle.of(entry) for entry in yaml.safe_load(FILE.read_text())["obstacles"]]


def page() -> str:
    """The text of docs/obstacles.md."""
    return "\n".join([INTRODUCTION, *map(section_of, catalogue())])


def section_of(obstacle: Obstacle) -> str:
    """An obstacle as a section of the page."""
    real = f"Simulated: {obstacle.simulated}" if obstacle.simulated else "The scene is real."
    shown = f"Shown as `{obstacle.finding}`. " if obstacle.finding else ""
    places = ", ".join(f"[{path}](../{path})" for path in obstacle.where)
    part = f"{shown}Our part: {places}. {real}"
    return section(obstacle.title, f"    {obstacle.error}", obstacle.cause, obstacle.remedy, part)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
