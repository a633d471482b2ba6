"""What the result of a check ladder says. Runs on servers: Python >= 3.9, standard library only."""

from __future__ import annotations

from typing import Any


def failed(ladder: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(rung, check) of each failed check."""
    return [
        (rung["rung"], check)
        for rung in ladder.get("rungs", [])
        for check in rung["checks"]
        if check["status"] == "failed"
    ]


def failed_checks(ladder: dict[str, Any]) -> list[tuple[str, str]]:
    """(rung, sentence with cause and remedy) of each failed check."""
    return [(rung, f"{rung} FAILED, {check['name']}: {_cause(check)}") for rung, check in failed(ladder)]


def _cause(check: dict[str, Any]) -> str:
    remedy = f" Remedy: {check['remedy']}" if check.get("remedy") else ""
    return f"{check.get('reason') or check.get('detail')}{remedy}"
