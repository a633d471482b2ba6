#!/usr/bin/python
"""Tell what experiments a server has, and what a new one would be made of."""

from __future__ import annotations

DOCUMENTATION = r"""
module: experiment_info
short_description: Tell what experiments a server has, and what a new one would be made of
description:
  - Tells of each experiment of a prefix what became of it, what it was made of, and, from its log, how far it is, what
    it says now and what is wrong with it.
  - Reads the configs that new experiments name, and the datasets that role C(coco) has found.
  - Changes nothing, but that it records the end of a run that nobody has recorded yet, where O(signatures) say what is
    wrong with it.
options:
  prefix: {description: The stack's prefix., type: path, required: true}
  only: {description: 'Experiments to tell of; all where empty.', type: list, elements: str, default: []}
  detectron: {description: The install of Detectron whose configs are meant., type: path, default: ''}
  configs:
    description: >-
      Configs to read, by experiment: C(config) is the name of a file without C(.yaml), or a full path; C(workspace) is
      the name of a folder in C(work/), whose configs come first.
    type: dict
    default: {}
  logs:
    description: >-
      What is known of an experiment's log already, by experiment, as C(log.state) of an earlier look told it: only what
      came after is read.
    type: dict
    default: {}
  signatures: {description: 'What is wrong, by how a log says it.', type: list, elements: dict, default: []}
  server: {description: 'Folder of this server in C(checks/).', type: str, default: ''}
"""

RETURN = r"""
experiments:
  description: >-
    By name: C(state), C(facts) (experiment.json), C(log) (how far it is), C(config) and C(baseline) (C(path) and
    C(text); empty where there is none), C(ran) (the config of its last start), C(verdict) (of a rehearsal that has
    ended: its verdict.json), C(images) (of an inference: C(done) of C(total)), C(workspace) (what its workspace was
    built of).
  type: dict
  returned: success
datasets: {description: Datasets that are known on this server., type: dict, returned: success}
reports: {description: What was found in them., type: dict, returned: success}
detectron: {description: The install of Detectron and what it was built from., type: dict, returned: success}
"""

import contextlib
import glob
import os
import socket
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.experiment_log import settle
from ansible.module_utils.experiment_runs import folder_of, names, state_of
from ansible.module_utils.stack_installs import RECEIPT, StackError, read_json, restrict_umask
from ansible.module_utils.training_log import findings, new_state, progress, read

LOG_END = 4096  # bytes
SHOWN = 300  # characters of a line


def found_config(prefix: str, detectron: str, config: str, workspace: str) -> dict[str, str]:
    """Path and text of a config; empty where there is none. Raises StackError where two have the name."""
    if os.path.isabs(config):
        paths = [config] if os.path.isfile(config) else []
    else:
        name = config if config.endswith(".yaml") else f"{config}.yaml"
        work = os.path.join(prefix, "work", workspace)
        paths = glob.glob(os.path.join(glob.escape(work), "configs", name)) if workspace else []
        tree = os.path.join(work, "detectron") if workspace else detectron
        paths = paths or sorted(glob.glob(os.path.join(glob.escape(tree), "configs", "**", name), recursive=True))
    if len(paths) > 1:
        raise StackError(f"{config} is the name of several configs: {', '.join(paths)}. Give the full path of one.")
    if not paths:
        return {"path": "", "text": ""}
    with open(paths[0], encoding="utf-8", errors="replace") as stream:
        return {"path": paths[0], "text": stream.read()}


def log_of(
    folder: str, became: dict[str, Any], signatures: list[dict[str, Any]], known: dict[str, Any]
) -> dict[str, Any]:
    """state (of training_log), progress (a line), findings, end (the last lines). No log is an empty one."""
    path, state = os.path.join(folder, "log.txt"), {**new_state(), **known}
    lines: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        state = read(path, signatures, state, ended=became["state"] != "running")
        with open(path, "rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - LOG_END))
            lines = stream.read().decode(errors="replace").splitlines()
    found = findings(state, signatures, time.time(), became)
    end = [line[:SHOWN] for line in lines if line.strip()][-15:]
    return {"state": state, "progress": progress(state, time.time()), "findings": found, "end": end}


def images_of(folder: str) -> dict[str, int]:
    """How many images an inference has done of how many; {} where the run is none."""
    results = read_json(os.path.join(folder, "results.json"))
    return {"done": len(results.get("images", [])), "total": results["total"]} if "total" in results else {}


def text_of(path: str) -> str:
    """A text file; empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "only": {"type": "list", "elements": "str", "default": []},
            "detectron": {"type": "path", "default": ""},
            "configs": {"type": "dict", "default": {}},
            "logs": {"type": "dict", "default": {}},
            "signatures": {"type": "list", "elements": "dict", "default": []},
            "server": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    prefix = given["prefix"]
    restrict_umask()
    experiments: dict[str, Any] = {}
    try:
        for name in [*given["only"]] or sorted({*names(prefix), *given["configs"]}):
            folder = folder_of(prefix, name)
            state = state_of(folder)
            if given["signatures"] and state["state"] not in ("running", "") and not module.check_mode:
                settle(prefix, name, given["signatures"], time.time())
            experiments[name] = {
                "state": state,
                "folder": folder,
                "log": log_of(folder, state, given["signatures"], given["logs"].get(name, {})),
                "facts": read_json(os.path.join(folder, "experiment.json")),
                "verdict": read_json(os.path.join(folder, "verdict.json")),
                "images": images_of(folder),
            }
            wanted = given["configs"].get(name)
            if wanted:
                found = found_config(prefix, given["detectron"], wanted["config"], wanted.get("workspace", ""))
                stem = os.path.basename(wanted["config"])
                baseline = found if found["path"].startswith(f"{given['detectron']}/") else {}
                experiments[name]["config"] = found
                made = os.path.join(prefix, "work", wanted.get("workspace") or ".", "workspace.json")
                experiments[name]["workspace"] = read_json(made) if wanted.get("workspace") else {}
                experiments[name]["ran"] = text_of(os.path.join(folder, "config.yaml"))
                experiments[name]["baseline"] = baseline or found_config(prefix, given["detectron"], stem, "")
        known = read_json(os.path.join(prefix, "checks", given["server"] or socket.gethostname(), "datasets.json"))
        built_from = read_json(os.path.join(given["detectron"], RECEIPT))
    except (StackError, OSError) as failure:
        module.fail_json(msg=str(failure))
    module.exit_json(
        changed=False,
        experiments=experiments,
        datasets=known.get("datasets", {}),
        reports=known.get("reports", {}),
        detectron={"path": given["detectron"], **built_from.get("inputs", {})},
    )


if __name__ == "__main__":
    main()
