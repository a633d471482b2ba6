"""The catalogue of breaks, breaks.yml, which describes its fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


@dataclasses.dataclass(frozen=True)
class Break:
    """One way in which an install can be wrong."""

    role: str
    what: str
    paths: tuple[str, ...]
    program: str
    ladder: tuple[str, ...] = ()
    alone: str = ""
    added: bool = False
    blind: str = ""

    @staticmethod
    def of(entry: Mapping[str, Any]) -> Break:
        """From an entry of the file."""
        fields = {"program" if name == "break" else name: value for name, value in entry.items()}
        return Break(**fields | {name: tuple(fields.get(name, ())) for name in ("paths", "ladder")})

    @property
    def title(self) -> str:
        return f"{self.role}: {self.what}"


def catalogue() -> list[Break]:
    """All breaks, in the order of the file."""
    entries = yaml.safe_load(Path(__file__).with_name("breaks.yml").read_text())["breaks"]
    return [Break.of(entry) for entry in entries]
