"""What a throwaway server is, and the bubblewrap sandbox that makes one. Standard library only."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

LOGIN = "researcher"
LOGIN_ID = 1000  # user and group id on the server
ORDINARY_ID = 52077  # user and group id on this machine when the fleet is started as root; needs no account
# A second account of a server has the next number, in both.

PORT = 22022
# What an account must answer to prove that it has no privileges: no single quotes, for any shell can pass it on.
WHO = "id -un; id -u; pwd; hostname; (sudo -n true) 2>/dev/null && echo sudo || echo plain; id -G"

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PYTHONS = ("python[0-9]*", "python")
COMPILERS = ("cc", "c89*", "c99*", "c++*", "cpp*", "gcc*", "g++*", "clang*", "*-gcc*", "*-g++*", "*-cpp*")
GITS = ("git", "git-*")
PRIVILEGE = ("sudo", "sudoedit", "doas", "pkexec")

NO_SANDBOX = """\
No throwaway server can be started: bubblewrap cannot make a user namespace here. It said:
  {said}
In a container: start it with --security-opt seccomp=unconfined --security-opt apparmor=unconfined, or --privileged.
On Ubuntu >= 23.10, as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0
Elsewhere, as root: sysctl -w user.max_user_namespaces=10000
Or take containers, where one of these is installed and allowed: fleet.py up --backend podman, or --backend docker."""


class FleetError(Exception):
    """Something a person must mend; the text says what and how."""


# --- What a server is ---------------------------------------------------------------------------------------------


def option(default: Any, metavar: str, text: str, *, spec_only: bool = False) -> Any:
    """A field of Server with what `fleet.py up --help` says of it; a default {} means NAME=VALUE pairs."""
    metadata = {"metavar": metavar, "help": text, "spec_only": spec_only}
    if default == {}:
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Server:
    """One throwaway server. Each field but the name may be given in a spec file, by the same name."""

    name: str
    login: str = option(LOGIN, "NAME", "the account's name; its home must be given too", spec_only=True)
    # The second account has an address and processes of its own, but the same host name, /tmp, /var/tmp and HOMEs.
    account_of: str | None = option(None, "SERVER", "another account of that server; needs root", spec_only=True)
    home: str = option(f"/home/{LOGIN}", "PATH", "HOME on the server")
    shared_home: str | None = option(None, "GROUP", "servers of one group share one HOME, as over NFS")
    home_size: int | None = option(None, "BYTES", "keep HOME in memory, with this limit")
    home_files: Mapping[str, str] = option({}, "NAME=TEXT", "a file in the new HOME, such as a .bashrc that prints")
    read_only_home: bool = option(False, "", "nothing can be written in HOME")
    data: str | None = option(None, "PATH", "another folder to write in, such as /data/researcher")
    data_size: int | None = option(None, "BYTES", "keep that folder in memory, with this limit")
    shell: str = option("/bin/bash", "PATH", "login shell")
    umask: str | None = option(None, "MODE", "umask of the login, such as 0077 or 0002")
    environment: Mapping[str, str] = option({}, "NAME=VALUE", "set for every session, as /etc/environment would")
    compiler: bool = option(True, "", "hide the C and C++ compilers")
    git: bool = option(True, "", "hide git")
    network: bool = option(True, "", "no interface but its own loopback; the login still works")
    python: str | None = option(
        None, "none|PATH", "hide the system's Pythons, and put that interpreter, if any, in their place"
    )
    unreachable: str | None = option(None, "refuses|drops", "what the address does with connections")

    def __post_init__(self) -> None:
        for wrong, message in (
            (not self.name.replace("-", "").isalnum(), "is no host name: use letters, digits and hyphens"),
            (not re.fullmatch("[a-z_][a-z0-9_.-]*", self.login), f"login {self.login!r} is no account's name"),
            (not self.home.startswith("/home/"), f"home must lie in /home, not at {self.home!r}"),
            (
                self.login != LOGIN and self.home == f"/home/{LOGIN}",
                f"{self.login} needs a home of its own, such as home: /home/{self.login}",
            ),
            (
                self.account_of and (self.shared_home or self.home_size or self.data_size),
                "an account_of another server has neither shared_home nor home_size nor data_size",
            ),
            (
                self.shared_home and (self.home_size or self.read_only_home),
                "home_size and read_only_home make a HOME that cannot be shared: drop one of both",
            ),
            (self.home_size and self.read_only_home, "a read_only_home needs no home_size: drop one of both"),
            (
                self.data and not re.fullmatch("/(data|mnt|opt|scratch)/[^/]+", self.data),
                f"data must be a folder in /data, /mnt, /opt or /scratch, not {self.data!r}",
            ),
            (self.data_size and not self.data, "data_size needs data: the folder that it limits"),
            (not self.shell.startswith("/"), f"shell must be a path, such as /bin/zsh, not {self.shell!r}"),
            (
                self.umask and not re.fullmatch("0?[0-7]{3}", str(self.umask)),
                f"umask must be octal digits in quotes, such as '0077', not {self.umask!r}",
            ),
            (
                self.unreachable not in (None, "refuses", "drops"),
                f"unreachable must be refuses or drops, not {self.unreachable!r}",
            ),
            *(
                (name.startswith("/") or ".." in name.split("/"), f"home_files: {name!r} is not a path in HOME")
                for name in self.home_files
            ),
            *(
                (
                    not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) or "\n" in value,
                    f"environment: sshd cannot set {name!r} to {value!r}",
                )
                for name, value in self.environment.items()
            ),
        ):
            if wrong:
                raise FleetError(f"{self.name}: {message}.")

    @property
    def home_folder(self) -> str:
        """Name of its folder in <state>/homes."""
        return self.shared_home or self.name

    @property
    def host(self) -> str:
        """Name of the machine, which two accounts may have in common."""
        return self.account_of or self.name


def server_options() -> list[dataclasses.Field[Any]]:
    """The fields of Server that ask for something: all but its name."""
    return [field for field in dataclasses.fields(Server) if field.name != "name"]


def servers_from_spec(spec: Mapping[str, Any]) -> list[Server]:
    """Read {"servers": {name: {field: value}}}; unknown fields are refused by name."""
    known = {field.name for field in server_options()}
    servers = []
    for name, given in (spec.get("servers") or {}).items():
        options = given or {}
        if unknown := sorted(set(options) - known):
            raise FleetError(f"{name}: unknown {', '.join(unknown)}. A server may have: {', '.join(sorted(known))}.")
        servers.append(Server(name=str(name), **options))
    if not servers:
        raise FleetError('The spec names no server. Expected: {"servers": {"server1": {}}}.')
    return servers


def read_spec(path: Path) -> Mapping[str, Any]:
    """Read a spec file: JSON, or YAML where PyYAML is installed (as it is in .venv)."""
    text = path.read_text()
    if path.suffix == ".json":
        loaded = json.loads(text)
    else:
        import yaml  # only here: everything else runs on a bare Python

        loaded = yaml.safe_load(text)
    if not isinstance(loaded, dict):
        raise FleetError(f"{path} is not a mapping with a key `servers`.")
    return loaded


class Backend(Protocol):
    """A way to start servers. What they see of the state folder, and how one logs in to them, is the same in all."""

    first_id: int  # user and group id that a server's first account has on this machine, when root starts it
    inherits_listener: bool  # whether the open socket is handed on, or closed for sshd to open the same

    def run_folder(self, server: Server) -> str:
        """Where the server sees <state>/servers/<server>/run."""

    def check(self, servers: Sequence[Server]) -> None:
        """Raise FleetError with cause and remedy unless these servers can really be started here."""

    def start(self, state: Path, server: Server, accounts: Sequence[Server], listener: socket.socket) -> None:
        """Start a server that is prepared; `accounts` are all those of its machine."""

    def process(self, state: Path, server: Server) -> int | None:
        """First process of a server as this machine counts, or None when it does not run."""

    def stop(self, state: Path) -> None:
        """End every server of a state folder, also those of a start that broke off."""


# --- The sandbox --------------------------------------------------------------------------------------------------


def find_program(name: str) -> str:
    """Full path of a system program; sbin is searched too, since an ordinary user's PATH often lacks it."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")
    if not found:
        raise FleetError(f"{name} is not installed. `scripts/system.sh servers` says which command installs it.")
    return found


def real_programs(patterns: Iterable[str], folder: str = "/usr/bin") -> list[str]:
    """The real files behind all programs that match: hiding those hides every name that links to them."""
    return sorted({os.path.realpath(path) for pattern in patterns for path in glob.glob(f"{folder}/{pattern}")})


@dataclasses.dataclass(frozen=True)
class Python:
    """An interpreter that is not the system's, in its place."""

    program: str
    places: tuple[str, ...]  # where a server has it
    prefix: str  # its installation, on the server too: an interpreter finds its libraries by their full path
    source: str  # where the starter of the sandbox finds that installation

    @staticmethod
    def of(server: Server) -> Python | None:
        """The interpreter that a server asks for, if any. Raises FleetError when it does not run."""
        if server.python in (None, "none"):
            return None
        ask = "import sys; print(getattr(sys, 'base_prefix', sys.prefix)); print('python%d.%d' % sys.version_info[:2])"
        try:
            told = subprocess.run([str(server.python), "-c", ask], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise FleetError(f"{server.name}: python {server.python!r} does not run: {error}") from error
        prefix, name = told.splitlines()
        if prefix == "/usr":
            raise FleetError(f"{server.name}: {server.python!r} is the system's Python, which a server has anyway.")
        # /usr is read-only, so only what it has can be replaced there; this machine has no /usr/bin/python.
        places: tuple[str, ...] = ("/usr/bin/python3",)
        if name.startswith("python2"):
            places = tuple(f"/usr/local/bin/{alias}" for alias in ("python", "python2", name))
        return Python(program=f"{prefix}/bin/{name}", places=places, prefix=prefix, source=prefix)


def as_ordinary_user(
    state: Path, python: Python | None = None, number: int = ORDINARY_ID
) -> tuple[list[str], str, Python | None]:
    """How to start a program without privileges, and where it then finds the state folder and that Python.

    For an ordinary user: as it is, in place. For root: as that number, in a mount namespace of its own, where both are
    also at /mnt, because an ordinary user may not walk through, say, /root.
    """
    if os.geteuid() != 0:
        return [], str(state), python
    mount = """\
mount -t tmpfs tmpfs /mnt && mkdir /mnt/fleet /mnt/python && mount --bind "$1" /mnt/fleet &&
if [ -n "$2" ]; then mount --bind "$2" /mnt/python; fi && shift 2 && exec "$@\""""
    prefix = [find_program("unshare"), "--mount", "--propagation", "private"]
    prefix += ["sh", "-c", mount, "sh", str(state), python.source if python else ""]
    prefix += [find_program("setpriv"), f"--reuid={number}", f"--regid={number}", "--clear-groups", "--"]
    return prefix, "/mnt/fleet", dataclasses.replace(python, source="/mnt/python") if python else None


def probe_sandbox() -> None:
    """Raise FleetError with cause and remedy unless a sandbox can really be made here."""
    prefix, _, _ = as_ordinary_user(Path("/usr"))  # any folder will do
    sandbox = [find_program("bwrap"), "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc"]
    tried = subprocess.run([*prefix, *sandbox, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if tried.returncode != 0:
        raise FleetError(NO_SANDBOX.format(said=tried.stderr.strip() or f"nothing (exit status {tried.returncode})"))


def folders_to_write_in(server: Server, state: str) -> list[str]:
    """bubblewrap's arguments for HOME and `data` of an account."""
    own = f"{state}/servers/{server.name}"
    if server.home_size:
        home = ["--perms", "0700", "--size", str(server.home_size), "--tmpfs", server.home]
    elif server.read_only_home:
        home = ["--ro-bind", f"{own}/run/home", server.home]
    else:
        home = ["--bind", f"{state}/homes/{server.home_folder}", server.home]
    if not server.data:
        return home
    home += ["--perms", "0755", "--dir", os.path.dirname(server.data)]
    if server.data_size:
        return [*home, "--perms", "0700", "--size", str(server.data_size), "--tmpfs", server.data]
    return [*home, "--bind", f"{own}/data", server.data]


def sandbox_arguments(server: Server, state: str, python: Python | None, accounts: Sequence[Server] = ()) -> list[str]:
    """bubblewrap's arguments for a server; `state` and `python.source` are paths as the sandbox's starter sees them.

    `accounts` are all accounts of the machine, this server's among them.
    """
    own = f"{state}/servers/{server.name}"
    number = LOGIN_ID + (accounts.index(server) if accounts else 0)
    arguments = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    arguments += [] if server.network else ["--unshare-net"]
    arguments += ["--uid", f"{number}", "--gid", f"{number}", "--hostname", server.host]
    arguments += ["--proc", "/proc", "--dev", "/dev", "--ro-bind", "/sys", "/sys"]
    for folder, mode in (("/home", "0755"), ("/opt", "0755"), ("/root", "0111"), ("/var", "0755")):
        arguments += ["--perms", mode, "--dir", folder]
    for device in sorted(glob.glob("/dev/nvidia*")):
        arguments += ["--dev-bind", device, device]

    # The system, without what only the controller's owner put there.
    arguments += ["--ro-bind", "/usr", "/usr", "--tmpfs", "/usr/local"]
    for place in python.places if python else ():
        arguments += ["--ro-bind", f"{own}/run/python", place] if place.startswith("/usr/local/") else []
    arguments += ["--remount-ro", "/usr/local"]
    for top in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
        if os.path.islink(top):
            arguments += ["--symlink", os.readlink(top), top]
        elif os.path.isdir(top):
            arguments += ["--ro-bind", top, top]
    arguments += ["--ro-bind", "/etc", "/etc"]
    for name in ("passwd", "group", "hosts", "hostname"):
        if os.path.exists(f"/etc/{name}"):
            arguments += ["--ro-bind", f"{own}/run/{name}", f"/etc/{name}"]

    arguments += ["--tmpfs", "/run", "--ro-bind", f"{own}/run", "/run/fleet"]
    resolver = os.path.realpath("/etc/resolv.conf")
    if resolver.startswith("/run/"):
        arguments += ["--ro-bind-try", resolver, resolver]
    machine = f"{state}/servers/{server.host}"
    arguments += ["--bind", f"{machine}/tmp", "/tmp", "--bind", f"{machine}/var_tmp", "/var/tmp"]
    for account in accounts or [server]:
        arguments += folders_to_write_in(account, state)

    hidden = real_programs(PRIVILEGE) + [path for path in ("/etc/pip.conf",) if os.path.exists(path)]
    hidden += [] if server.compiler else real_programs(COMPILERS)
    hidden += [] if server.git else real_programs(GITS)
    if server.python:
        # The first program still needs a Python of its own.
        real = os.path.realpath("/usr/bin/python3")
        arguments += ["--ro-bind", real, "/run/first_python", "--setenv", "PYTHONHOME", "/usr"]
        hidden += real_programs(PYTHONS)
    # Hidden: an empty file that cannot be executed lies over it. (bash's own `command -v` still prints such a name.)
    for path in hidden:
        arguments += ["--ro-bind", f"{own}/run/empty", path]
    if python:
        arguments += ["--ro-bind", python.source, python.prefix]
        for place in python.places:
            arguments += (
                [] if place.startswith("/usr/local/") else ["--ro-bind", f"{own}/run/python", os.path.realpath(place)]
            )
    return [*arguments, "--remount-ro", "/run", "--remount-ro", "/", "--chdir", server.home]


class Bubblewrap:
    """The default backend: nothing is installed or built for it, and an ordinary user can start it."""

    first_id = ORDINARY_ID
    inherits_listener = True

    def run_folder(self, server: Server) -> str:
        return "/run/fleet"

    def check(self, servers: Sequence[Server]) -> None:
        for program in ("sshd", "bwrap"):
            find_program(program)
        probe_sandbox()
        for server in servers:
            if not os.access(server.shell, os.X_OK):
                raise FleetError(
                    f"{server.name}: shell {server.shell} is not installed. `scripts/system.sh tests` installs some."
                )

    def start(self, state: Path, server: Server, accounts: Sequence[Server], listener: socket.socket) -> None:
        own = state / "servers" / server.name
        account = ORDINARY_ID + list(accounts).index(server)
        prefix, shown, python = as_ordinary_user(state, Python.of(server), account)
        first_python = "/run/first_python" if server.python else "/usr/bin/python3"
        sshd = [] if server.unreachable else [find_program("sshd"), "-i", "-e", "-f", "/run/fleet/sshd_config"]
        with (own / "log").open("ab") as log, (own / "process.json").open("wb") as process:
            inside = [first_python, "/run/fleet/first_program.py", str(listener.fileno()), server.home, WHO, *sshd]
            subprocess.Popen(
                [
                    *prefix,
                    find_program("bwrap"),
                    *sandbox_arguments(server, shown, python, accounts),
                    *("--info-fd", str(process.fileno())),
                    *("--setenv", "FLEET_SERVER", str(own)),  # how server_process() knows it again
                    *("--", *inside),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(listener.fileno(), process.fileno()),
                env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"},
                start_new_session=True,  # a Ctrl-C in the terminal is not for the servers
            )

    def process(self, state: Path, server: Server) -> int | None:
        return server_process(state / "servers" / server.name)

    def stop(self, state: Path) -> None:
        processes = [server_process(path.parent) for path in state.glob("servers/*/process.json")]
        for process in filter(None, processes):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)  # the first process of a sandbox takes all others with it
        deadline = time.monotonic() + 60
        for process in filter(None, processes):
            while os.path.exists(f"/proc/{process}/ns"):
                if time.monotonic() > deadline:
                    raise FleetError(f"Process {process} does not end; {state} is left as it is.")
                time.sleep(0.02)


def server_process(folder: Path) -> int | None:
    """First process of the server with this folder, or None: bubblewrap wrote its number, /proc knows what it is.

    A number alone may long belong to another program: the command line must name this server's folder.
    """
    try:
        process = int(json.loads((folder / "process.json").read_text())["child-pid"])
        arguments = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError, KeyError):
        return None
    return process if os.fsencode(folder) in arguments else None
