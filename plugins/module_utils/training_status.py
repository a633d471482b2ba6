"""What became of experiments, for a person. Runs on the controller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

USES = ("inference", "evaluation")  # kinds of runs that use a model, and make none


def experiment_lines(experiments: Mapping[str, Any]) -> list[str]:
    """A line per experiment: what became of it and how far it is."""
    return [line for name, experiment in experiments.items() for line in _lines(name, experiment)]


def how_far(experiment: Mapping[str, Any]) -> str:
    """How far a run is, in a line."""
    progress = str(experiment["log"]["progress"])
    if kind_of(experiment) in USES:
        # Of iterations it says nothing.
        return images_done(experiment) or progress.partition(": no iteration")[0]
    return progress


def kind_of(experiment: Mapping[str, Any]) -> str:
    return str(experiment.get("facts", {}).get("kind", ""))


def images_done(experiment: Mapping[str, Any]) -> str:
    """How many images an inference has done; "" for another run, and before the first one."""
    return "{done} of {total} images".format(**experiment["images"]) if experiment.get("images") else ""


def _precision(experiment: Mapping[str, Any]) -> list[str]:
    """The average precision that an evaluation ended with."""
    return [
        f"{dataset}: " + ", ".join(f"{task} AP {100 * numbers['AP']:.1f}" for task, numbers in tasks.items())
        for dataset, tasks in experiment["log"]["state"].get("results", {}).items()
        if tasks and all(numbers.get("AP") is not None and numbers["AP"] >= 0 for numbers in tasks.values())
    ]


def _lines(name: str, experiment: Mapping[str, Any]) -> list[str]:
    state, log = experiment["state"], experiment["log"]
    if experiment.get("verdict") and state["state"] in ("finished", "failed"):
        return _verdict_lines(name, state["server"], experiment["verdict"])
    words = [f"{name}: {state['state'] or 'never started'}"]
    if state["state"] == "running":
        words += [f"on {state['where']}", how_far(experiment)]
    elif state["state"]:
        words += [f"on {state['server']}"] if state["server"] else []
        if kind_of(experiment) in USES:
            words += filter(None, [images_done(experiment), *_precision(experiment)])
        elif state["final"]:
            words.append("the final model is written")
        elif state["checkpoint"] >= 0:
            words.append(f"its last checkpoint is that of iteration {state['checkpoint']}")
        else:
            words.append("it has no checkpoint")
        if state["state"] != "finished" and log["state"]["last"]:
            words.append(f"it got to iteration {log['state']['last']['iter']}")
    return [", ".join(words), *(line for finding in log["findings"] for line in _finding_lines(finding))]


def _verdict_lines(name: str, server: str, verdict: Mapping[str, Any]) -> list[str]:
    """What a rehearsal found, rung by rung."""
    said = {"passed": "passed", "failed": "FAILED", "not_applicable": "n/a"}
    status = {"not_rehearsed": "cannot be rehearsed"}.get(verdict["status"], verdict["status"])
    lines = [f"{name}: {status}, on {server}, in {verdict['total_seconds']:.0f} s"]
    lines += [f"  STAND-IN    {verdict['stand_in']}"] if verdict["stand_in"] else []
    for rung in verdict["rungs"]:
        lines.append(f"  {rung['rung']:<10}  {said[rung['status']]:<6}  {rung['reason']}")
        lines += [f"  {'':<18}  Remedy: {rung['remedy']}"] if rung["remedy"] else []
    return lines


def _finding_lines(finding: Mapping[str, Any]) -> list[str]:
    where = f"log.txt:{finding['line']}: " if finding["line"] else ""
    return [
        f"  {finding['severity'].upper()} {finding['title']}",
        *([f"    Log     {where}{finding['text']}"] if finding["text"] else []),
        f"    Cause   {' '.join(finding['cause'].split())}",
        f"    Remedy  {' '.join(finding['remedy'].split())}",
    ]
