"""Throwaway servers in containers of podman or docker: other distributions, and programs that are really absent."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from sandbox import LOGIN_ID, SYSTEM_PATH, WHO, FleetError, Server

NOT_INSTALLED = """\
No throwaway server can be started: {engine} is not installed. On Debian or Ubuntu, as root:
  apt-get install {packages}
Or leave out --backend: bubblewrap needs no containers."""

NO_CONTAINERS = """\
No throwaway server can be started: {engine} cannot start a container here. It said:
  {said}
Where it names setrlimit or a capability, put these lines into a file, and its path into CONTAINERS_CONF:
  [containers]
  default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
  [engine]
  runtime = "runc"
Or leave out --backend: bubblewrap needs no containers."""

NO_IMAGE = """\
No image for {names} can be built from {image}. {engine} said:
  {said}
The image must be a Debian or an Ubuntu, be here or in a registry in reach, and have package sources that answer.
Without a registry: mmdebstrap --variant=apt bookworm base.tar, {engine} import base.tar localhost/debian:12, and then
--image localhost/debian:12"""

# python3-minimal lacks modules that Ansible imports.
PACKAGES = ("ca-certificates", "openssh-server")
SHELLS_OF_EVERY_IMAGE = ("sh", "bash", "dash")

Runner = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclasses.dataclass(frozen=True)
class Containers:
    """A backend: one container for each machine, with an sshd for each account, on this machine's loopback.

    Its root is that of `engine`, but it only starts sshd; an account cannot become root (no setuid program works).
    """

    engine: str  # podman or docker: only what both understand is said to them
    image: str = "debian:12-slim"
    runner: Runner = subprocess.run

    first_id = LOGIN_ID
    inherits_listener = False

    def run_folder(self, server: Server) -> str:
        return f"/run/fleet/{server.name}"

    def check(self, servers: Sequence[Server]) -> None:
        """Build the images that are missing. Raises FleetError when these servers cannot be had."""
        for server in servers:
            for option, wrong in (
                ("network: false", not server.network),
                (f"unreachable: {server.unreachable}", server.unreachable),
                (f"python: {server.python}; take an --image that has it", server.python not in (None, "none")),
            ):
                if wrong:
                    raise FleetError(f"{server.name}: the backend {self.engine} cannot give {option}.")
        if not shutil.which(self.engine, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"):
            packages = "podman runc" if self.engine == "podman" else "docker.io"
            raise FleetError(NOT_INSTALLED.format(engine=self.engine, packages=packages))
        for tag, alike in group_by_tag(self.image, servers).items():
            self._build(tag, alike)
            tried = self._run("run", "--rm", "--network", "host", tag, "true")
            if tried.returncode != 0:
                raise FleetError(NO_CONTAINERS.format(engine=self.engine, said=tried.stderr.strip()))

    def _build(self, tag: str, servers: Sequence[Server]) -> None:
        """Build an image unless it is there; images stay when the servers go."""
        if self._run("image", "inspect", tag).returncode == 0:
            return
        print(f"Building an image from {self.image}: a few minutes, once", file=sys.stderr)
        with tempfile.TemporaryDirectory() as nothing:
            built = self._run(
                *("build", "--network", "host", "--tag", tag, "--file", "-", nothing),
                text_in=containerfile(self.image, servers[0]),
            )
        if built.returncode != 0:
            said = "\n  ".join((built.stdout + built.stderr).strip().splitlines()[-8:])
            names = ", ".join(server.name for server in servers)
            raise FleetError(NO_IMAGE.format(names=names, image=self.image, engine=self.engine, said=said))

    def start(self, state: Path, server: Server, accounts: Sequence[Server], listener: socket.socket) -> None:
        """Start the container of a machine; its second account lives in the same one."""
        del listener  # sshd opens its own, as on any server
        if server.account_of:
            return
        for account in accounts:
            (state / "servers" / account.name / "log").touch()
        run = state / "servers" / server.name / "run"
        (run / "container.sh").write_text(first_program(accounts, self.run_folder(server)))
        self._run("rm", "--force", container_name(state, server))  # one that ended, if any
        started = self._run(*run_arguments(state, server, accounts, image_tag(self.image, server)))
        if started.returncode != 0:
            raise FleetError(NO_CONTAINERS.format(engine=self.engine, said=started.stderr.strip()))

    def process(self, state: Path, server: Server) -> int | None:
        """First process of a server's container as this machine counts, or None when it does not run."""
        shown = self._run("inspect", "--format", "{{.State.Pid}}", container_name(state, server))
        return int(shown.stdout) or None if shown.returncode == 0 else None

    def stop(self, state: Path) -> None:
        """Remove every container of a state folder. Raises FleetError."""
        listed = self._run("ps", "--all", "--quiet", "--filter", f"label=fleet={state}")
        if listed.returncode == 0 and listed.stdout.split():
            listed = self._run("rm", "--force", *listed.stdout.split())
        if listed.returncode != 0:
            raise FleetError(f"{self.engine} cannot remove the servers of {state}: {listed.stderr.strip()}")

    def _run(self, *arguments: str, text_in: str = "") -> subprocess.CompletedProcess[str]:
        return self.runner([self.engine, *arguments], input=text_in, capture_output=True, text=True)


def packages(server: Server) -> list[str]:
    """Debian's packages that a server has, on top of its base image."""
    shell = os.path.basename(server.shell)
    return [
        *PACKAGES,
        *(["gcc", "g++"] if server.compiler else []),
        *(["git"] if server.git else []),
        *([] if server.python else ["python3"]),
        *([] if shell in SHELLS_OF_EVERY_IMAGE else [shell]),
    ]


def containerfile(image: str, server: Server) -> str:
    """How to build a server's image. What it must lack, and the base image has, ends the build."""
    absent = [
        *([] if server.compiler else ["cc", "gcc", "g++", "clang"]),
        *([] if server.git else ["git"]),
        *(["python3", "python"] if server.python else []),
        *("sudo", "doas", "pkexec"),
    ]
    return f"""\
FROM {image}
RUN apt-get update -q=2 && DEBIAN_FRONTEND=noninteractive apt-get install -q=2 --yes --no-install-recommends \
{" ".join(packages(server))} && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_*
RUN for one in {" ".join(absent)}; do if command -v $one; then echo "This image has $one." >&2; exit 1; fi; done
RUN test -x {shlex.quote(server.shell)}
"""


def image_tag(image: str, server: Server) -> str:
    """Name of the image that is built for a server: another recipe is another image."""
    return f"localhost/fleet:{zlib.crc32(containerfile(image, server).encode()):08x}"


def group_by_tag(image: str, servers: Sequence[Server]) -> dict[str, list[Server]]:
    """The images that servers need, each with those that need it; a second account takes its machine's."""
    groups: dict[str, list[Server]] = {}
    for server in servers:
        if not server.account_of:
            groups.setdefault(image_tag(image, server), []).append(server)
    return groups


def container_name(state: Path, server: Server) -> str:
    """Name of a machine's container: engines know names of all fleets, so the state folder takes part."""
    return f"fleet-{zlib.crc32(os.fsencode(state)):08x}-{server.host}"


def run_arguments(state: Path, server: Server, accounts: Sequence[Server], image: str) -> list[str]:
    """The engine's arguments that start a machine with these accounts."""
    own = state / "servers" / server.name
    arguments = ["run", "--detach", "--name", container_name(state, server), "--hostname", server.host]
    # The address is one of this machine's loopback; sshd alone listens there.
    arguments += ["--network", "host", "--label", f"fleet={state}", "--stop-timeout", "0"]
    arguments += ["--security-opt", "no-new-privileges"]
    if os.geteuid() != 0:
        # The starter is the account, so that what lies in HOME stays the starter's; root is a number that nobody has.
        arguments += ["--userns", f"keep-id:uid={LOGIN_ID},gid={LOGIN_ID}", "--user", "root"]
    volumes = [f"{own}/tmp:/tmp", f"{own}/var_tmp:/var/tmp"]
    for account in accounts:
        folder = state / "servers" / account.name
        volumes += [f"{folder}/run:/run/fleet/{account.name}:ro", f"{folder}/log:/var/log/fleet/{account.name}"]
        if account.home_size:
            arguments += ["--tmpfs", f"{account.home}:rw,exec,size={account.home_size}"]
        elif account.read_only_home:
            volumes.append(f"{folder}/run/home:{account.home}:ro")
        else:
            volumes.append(f"{state}/homes/{account.home_folder}:{account.home}")
        if account.data and account.data_size:
            arguments += ["--tmpfs", f"{account.data}:rw,exec,size={account.data_size}"]
        elif account.data:
            volumes.append(f"{folder}/data:{account.data}")
    for volume in volumes:
        arguments += ["--volume", volume]
    return [*arguments, image, "sh", f"/run/fleet/{server.name}/container.sh"]


def first_program(accounts: Sequence[Server], run: str) -> str:
    """The container's first program, as its root: makes the accounts, and starts an sshd for each."""
    lines = [
        "set -eu",
        f"exec </dev/null >>/var/log/fleet/{accounts[0].name} 2>&1",
        "mkdir -p /run/sshd",
    ]
    for number, account in enumerate(accounts, LOGIN_ID):
        folder, home = f"/run/fleet/{account.name}", shlex.quote(account.home)
        # An image may have an account of the same number, as Ubuntu's have.
        lines.append(f"sed -i '/^[^:]*:[^:]*:{number}:/d' /etc/passwd /etc/group")
        lines.append(f"grep '^{account.login}:' {run}/passwd >>/etc/passwd")
        lines.append(f"grep '^{account.login}:' {run}/group >>/etc/group")
        if not account.read_only_home:
            lines.append(f'[ -n "$(ls -A {home})" ] || cp -a {folder}/home/. {home}/')
            lines.append(f"chown {number}:{number} {home} && chmod 700 {home}")
        if account.data:
            lines.append(f"chown {number}:{number} {account.data} && chmod 700 {account.data}")
        who = f'cd "$HOME"; {WHO}'
        as_account = f"setpriv --reuid={number} --regid={number} --clear-groups env -i PATH={SYSTEM_PATH} HOME={home}"
        log = f"/var/log/fleet/{account.name}"
        lines.append(f"""echo "Account: $({as_account} sh -c '{who}' | tr '\\n' '|')" >>{log}""")
        sshd = f"/usr/sbin/sshd -D -f {folder}/sshd_config -E {log}"
        lines.append(f"{sshd} &")
    return "\n".join([*lines, "wait"]) + "\n"
