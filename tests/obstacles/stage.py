"""Plays obstacles on a throwaway server that site.yml has provisioned."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
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
        installs = (f'{role.upper()}=$(readlink -f "$PREFIX/current/{role}")' for role in INSTALLS)
        return "\n".join(
            (
                f"export LC_ALL=C.UTF-8 SCRATCH={SCRATCH} PREFIX={self.site.prefix} PYYAML={self._there}",
                f"STACK_RUN='{' '.join(stack_run(self.site.prefix))}'",
                "ACTIVATE=$PREFIX/current/activate.sh",
                *installs,
                f"export STACK_RUN ACTIVATE {' '.join(map(str.upper, INSTALLS))}",
            )
        )


def stack_run(prefix: str) -> list[str]:
    """What the roles put before each command that they run, by their own variables."""
    variables: dict[str, Any] = yaml.safe_load((ROOT / "roles/stack/vars/main.yml").read_text())
    jinja, known = NativeEnvironment(), {"stack_lookup": {"prefix": prefix}}
    environment = {
        name: str(jinja.from_string(value).render(known)) for name, value in variables["stack_environment"].items()
    }
    return list(jinja.from_string(variables["stack_run"]).render(known, stack_environment=environment))


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
