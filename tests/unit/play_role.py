"""Plays a role's tasks on this machine, in a real run of ansible-playbook, without the role that it depends on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


def play_role(
    role: Path, folder: Path, given: dict[str, Any], *arguments: str, path: str = os.environ["PATH"]
) -> tuple[int, str]:
    """Exit status and output. `given`: variables, in place of what role stack would look up. `folder`: for its files,
    and HOME. `path`: where programs are found."""
    play = {
        "name": "Play the role without its dependency, for which variables stand in",
        "hosts": "localhost",
        "gather_facts": False,
        "vars_files": [str(role / "defaults/main.yml"), str(role / "vars/main.yml")],
        "tasks": yaml.safe_load((role / "tasks/main.yml").read_text()),
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    (folder / "given.json").write_text(json.dumps(given))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *("--inventory", "localhost,", "--connection", "local"),
            *("--extra-vars", f"ansible_python_interpreter={sys.executable}"),
            *("--extra-vars", f"@{folder}/given.json"),
            *arguments,
            folder / "play.yml",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_HOME": str(folder / "ansible"),
            "ANSIBLE_PIPELINING": "true",  # a local connection would need mkdir otherwise
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "PATH": path,
        },
    )
    return done.returncode, done.stdout
