"""Plays obstacles on a throwaway server that site.yml has provisioned."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.filter.core import FilterModule
from jinja2 import StrictUndefined
from jinja2.nativetypes import NativeEnvironment

from tests.integration.site_run import ROOT, Site
from tests.obstacles.catalogue import Obstacle

SCRATCH = "/tmp/obstacle"
CURTAIN = "-- curtain --"
WHEELS = ROOT / ".cache/obstacles"
INSTALLS = ("anaconda2", "caffe2", "cocoapi", "detectron", "nvidia_libs")


@dataclasses.dataclass(frozen=True)
class Act:
    """How a program ended, and what it said on both streams."""

    status: int
    output: str

    @property
    def last_line(self) -> str:
        return next((line for line in reversed(self.output.splitlines()) if line.strip()), "")


@dataclasses.dataclass(frozen=True)
class Scene:
    """An obstacle without us, and with us; the latter is not played where the former is not real."""

    obstacle: Obstacle
    without: Act
    with_: Act | None
    seconds: float

    @property
    def complaint(self) -> str:
        """Why the obstacle is not reproduced, or not defeated; empty when it is both."""
        error = self.obstacle.error
        if self.without.status == 0:
            return f"Without us, it worked.\n{self.without.output}"
        if error not in self.without.output:
            return f"Without us, it failed, and did not say {error!r}, but\n{self.without.output}"
        if self.with_ is None or self.with_.status != 0 or error in self.with_.output:
            return f"With us, it failed as well.\n{self.with_.output if self.with_ else ''}"
        return ""


class Stage:
    """A server and the programs of the catalogue."""

    def __init__(self, site: Site) -> None:
        self.site = site
        wheel = pyyaml_wheel()
        self._there = f"/tmp/{wheel.name}"
        self._login(f"cat >{self._there}", wheel.read_bytes())

    def play(self, obstacle: Obstacle) -> Scene:
        """Play an obstacle without us, and, when that fails as it should, with us."""
        start = time.monotonic()
        clear = f"if [ -e {SCRATCH} ]; then chmod -R u+w {SCRATCH}; rm -r {SCRATCH}; fi\nmkdir -p $HOME"
        without = self._act(f"{clear}\ncd $SCRATCH\n{obstacle.given}\ncd $SCRATCH", obstacle.without)
        with_ = None
        if without.status != 0 and obstacle.error in without.output:
            run = self.site.provision(*obstacle.play) if obstacle.play else None
            if run and run.returncode != 0:
                with_ = Act(run.returncode, run.stdout)
            else:
                with_ = self._act("cd $SCRATCH", obstacle.with_)
        return Scene(obstacle, without, with_, time.monotonic() - start)

    def _act(self, before: str, program: str) -> Act:
        """Run a program of the Bourne shell, after another, in an account with nothing but the prefix."""
        # A file, so that nothing that it starts reads the program; in one line, because the login's shell may be a csh.
        run = f"cat >{SCRATCH}.sh && exec env -i HOME={SCRATCH}/home PATH=/usr/bin:/bin sh -eu {SCRATCH}.sh </dev/null"
        whole = f"exec 2>&1\n{self._prologue()}\n{before}\necho '{CURTAIN}'\n{program}\n"
        done = self._login(run, whole.encode())
        *_, output = done.stdout.decode(errors="replace").rpartition(f"{CURTAIN}\n")
        return Act(done.returncode, output)

    def _login(self, command: str, stdin: bytes) -> subprocess.CompletedProcess[bytes]:
        login = self.site.fleet.ssh(self.site.server)
        return subprocess.run([*login, command], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def _prologue(self) -> str:
        """What the programs are promised, as assignments."""
        installs = {role.upper(): f"$(readlink -f $PREFIX/current/{role})" for role in INSTALLS}
        known = {"PREFIX": self.site.prefix, "ACTIVATE": "$PREFIX/current/activate.sh", **installs}
        known |= {"LC_ALL": "C.UTF-8", "SCRATCH": SCRATCH, "SITE_HOME": self.site.server.home, "PYYAML": self._there}
        known |= commands(self.site.prefix, self.site.server.host) | {
            "CHANNEL_PACKAGES": " ".join(conda_lock()["channel"]["packages"])
        }
        return "".join(f'export {name}="{value}"\n' for name, value in known.items())


# --- The roles' own commands ------------------------------------------------------------------------------------------


def commands(prefix: str, server: str) -> dict[str, str]:
    """What the roles run, as words of the shell in which the programs' variables stand for the paths."""
    jinja = NativeEnvironment(undefined=StrictUndefined)
    jinja.filters |= FilterModule().filters()
    variables = yaml.safe_load((ROOT / "roles/stack/vars/main.yml").read_text())

    def rendered(template: Any, known: dict[str, Any]) -> Any:
        # Ansible, unlike Jinja, leaves backslashes alone.
        return jinja.from_string(template.replace("\\", r"\\")).render(known) if isinstance(template, str) else template

    known: dict[str, Any] = {"stack_lookup": {"prefix": prefix, "server": server}}
    given = variables["stack_environment"].items()
    known["stack_environment"] = {name: str(rendered(value, known)) for name, value in given}
    known["stack_run"] = rendered(variables["stack_run"], known)
    known |= {"__caffe2_conda": "$ANACONDA2", "__caffe2_scratch": "$SCRATCH/pkgs", "__caffe2_has_channel": False}
    python = [name for name in conda_lock()["conda_packages"] if name.startswith("python-")]

    def command(tasks: str, name: str, **more: Any) -> str:
        return " ".join(map(str, rendered(argv_of(ROOT / "roles" / tasks, name), known | more)))

    build = partial(command, "stack/tasks/build_tree.yml", stack_tree_installs={"caffe2": "$CAFFE2"})
    create = partial(command, "caffe2/tasks/main.yml", "Create the conda environment", __caffe2_path="$SCRATCH/env")
    return {
        "BUILD": build("Compile the extensions in place"),
        "PIP": command("caffe2/tasks/main.yml", "Install the packages that are pip's", __caffe2_path="$CAFFE2"),
        "CONDA": create(stack_lock={"caffe2": {"conda_packages": python}}),
        "CONDA_CHANNEL": create(
            stack_lock={"caffe2": {"conda_packages": [], "channel": conda_lock()["channel"]}}, __caffe2_has_channel=True
        ),
    }


def argv_of(tasks: Path, name: str) -> Any:
    """The argv, a template, of the task with that name, in whatever block it is."""
    todo = list(yaml.safe_load(tasks.read_text()))
    for task in todo:
        todo += task.get("block", [])
        if task["name"] == name:
            return task["ansible.builtin.command"]["argv"]
    raise LookupError(f"{tasks} has no task {name!r}")


def conda_lock() -> Any:
    """What the lock of the stack with a conda channel says of Caffe2."""
    lock = yaml.safe_load((ROOT / "group_vars/stack_cuda90_conda/lock.yml").read_text())
    return lock["stack_lock"]["caffe2"]


# --- A package that is not the lock's ---------------------------------------------------------------------------------


def pyyaml_wheel() -> Path:
    """A PyYAML that is not the lock's, from the package index, once."""
    requirements = Path(__file__).with_name("wheels.txt")
    if not list(WHEELS.glob("*.whl")):
        pip = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "download", f"--dest={WHEELS}"]
        for_python = ["--python-version=27", "--implementation=cp", "--abi=cp27mu", "--platform=manylinux1_x86_64"]
        what = ["--no-deps", "--only-binary=:all:", "--require-hashes", f"--requirement={requirements}"]
        subprocess.run([*pip, *for_python, *what], check=True)
    [wheel] = WHEELS.glob("*.whl")
    return wheel
