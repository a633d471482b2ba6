"""What all starts of Detectron have in common: its config, the script that runs it, and GPUs that work.

Runs on the controller.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def run_script(plan: Mapping[str, Any]) -> str:
    """run.sh of an experiment. `plan`: name, folder, generation, workspace, device, command (words in which @TOOLS@
    is the folder of Detectron's tools); playbook, exports (further variables)."""
    folder = plan["folder"]
    device = (
        ["export DETECTRON_DEVICE=cpu"]
        if plan["device"] == "cpu"
        # nvidia-smi counts by PCI bus and CUDA by speed, unless it is told.
        else ["export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=@GPUS@"]
    )
    workspace = [f". {shlex.quote(plan['workspace'] + '/activate.sh')}"] if plan["workspace"] else []
    lines = [
        "#!/bin/sh",
        f"# Experiment {plan['name']}, written by playbooks/{plan.get('playbook', 'train')}.yml; experiment.json says "
        "what it is made of.",
        "set -eu",
        f". {shlex.quote(plan['generation'] + '/activate.sh')}",
        *workspace,
        *device,
        f"export DETECTRON_DATASETS={shlex.quote(folder + '/datasets.json')}",
        *(f"export {name}={shlex.quote(str(value))}" for name, value in plan.get("exports", {}).items()),
        f"export TMPDIR={shlex.quote(folder + '/tmp')}",
        'mkdir -p "$TMPDIR"',
        'cd "$DETECTRON"',
        f"exec {shlex.join(plan['command'])}".replace("@TOOLS@", '"$DETECTRON_TOOLS"'),
    ]
    return "\n".join(lines) + "\n"


def found_here(name: str, folder: str, on_server: Mapping[str, str]) -> tuple[str, str]:
    """(path, text) of the config that a name means: a person's own, beside the inventory, comes first."""
    own = Path(folder, name if name.endswith(".yaml") else f"{name}.yaml")
    if not name.startswith("/") and own.is_file():
        return str(own), own.read_text(encoding="utf-8")
    return on_server["path"], on_server["text"]


def gpu_problems(gpus: int, ladder: Mapping[str, Any], remedy: str) -> list[str]:
    """Why the GPUs of this server cannot be used, by its last check ladder; `remedy`: what to do then."""
    rungs = {rung["rung"]: rung for rung in ladder.get("rungs", [])}
    for name in ("predicted", "operator", "cudnn_cublas", *(["multi_gpu"] if gpus > 1 else [])):
        rung = rungs.get(name, {"status": "not_applicable", "reason": "it was never climbed"})
        if rung["status"] == "failed":
            reasons = [check.get("reason", "") for check in rung.get("checks", []) if check.get("status") == "failed"]
            why = " ".join(reasons) or rung.get("reason", "")
            return [f"the check ladder of this server failed at {name}: {why} {remedy}"]
        if rung["status"] == "not_applicable":
            return [f"no GPU of this server has been seen to work ({name}: {rung.get('reason', '')}). {remedy}"]
    return []
