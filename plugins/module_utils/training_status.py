"""What became of experiments, for a person. Runs on the controller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def experiment_lines(experiments: Mapping[str, Any]) -> list[str]:
    """A line per experiment: what became of it and how far it is."""
    return [line for name, experiment in experiments.items() for line in _lines(name, experiment)]


def _lines(name: str, experiment: Mapping[str, Any]) -> list[str]:
    state, log = experiment["state"], experiment["log"]
    words = [f"{name}: {state['state'] or 'never started'}"]
    if state["state"] == "running":
        words += [f"on {state['where']}", log["progress"]]
    elif state["state"]:
        words += [f"on {state['server']}"] if state["server"] else []
        if state["final"]:
            words.append("the final model is written")
        elif state["checkpoint"] >= 0:
            words.append(f"its last checkpoint is that of iteration {state['checkpoint']}")
        else:
            words.append("it has no checkpoint")
        if state["state"] != "finished" and log["state"]["last"]:
            words.append(f"it got to iteration {log['state']['last']['iter']}")
    return [", ".join(words), *(line for finding in log["findings"] for line in _finding_lines(finding))]


def _finding_lines(finding: Mapping[str, Any]) -> list[str]:
    where = f"log.txt:{finding['line']}: " if finding["line"] else ""
    return [
        f"  {finding['severity'].upper()} {finding['title']}",
        *([f"    Log     {where}{finding['text']}"] if finding["text"] else []),
        f"    Cause   {' '.join(finding['cause'].split())}",
        f"    Remedy  {' '.join(finding['remedy'].split())}",
    ]
