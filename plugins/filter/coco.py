"""Filters of role coco: what coco_datasets returned, as text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.module_utils.coco_check import fingerprint  # noqa: E402

UNITS = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


def size(count: int) -> str:
    """Bytes in decimal units, as disks are sold: 1_500_000_000 -> "1.5 GB"."""
    return next((f"{count / scale:.1f} {unit}" for unit, scale in UNITS if count >= scale), f"{count} B")


def coco_table(checked: Mapping[str, Any]) -> str:
    """A line per dataset that was found: numbers, classes (as MODEL.NUM_CLASSES counts), size, fingerprint, usable."""
    rows = [["dataset", "images", "annotations", "classes", "size", "fingerprint", "usable"]]
    for name, report in sorted(checked["reports"].items()):
        counts = report["counts"]
        numbers = [f"{counts['images']:,}", f"{counts['annotations']:,}", str(report["classes"])]
        usable = "yes" if name in checked["datasets"] else "no"
        rows.append([name, *numbers, size(report["bytes"]["images"]), fingerprint(report), usable])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place in (0, 6) else cell.rjust(width) for place, (cell, width) in enumerate(cells)
        )
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return "\n".join(line.rstrip() for line in lines)


def coco_findings(checked: Mapping[str, Any], severities: list[str]) -> list[dict[str, Any]]:
    """Findings of some severities, for preflight_table: their ids with the dataset before them."""
    return [
        {**finding, "id": f"{finding['dataset']} {finding['id']}".strip()}
        for finding in checked["findings"]
        if finding["severity"] in severities
    ]


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        return {"coco_table": coco_table, "coco_findings": coco_findings}
