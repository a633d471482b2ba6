#!/usr/bin/env python3
"""Throwaway servers on this machine: a real sshd inside one sandbox or container each, and an account without sudo.

    fleet.py up --servers 3 --shared-home 2      start them (again: start those that are missing)
    fleet.py inventory --group stack_mine        write <state>/inventory.yml for ansible-playbook -i
    fleet.py shell server1 [COMMAND …]           log in
    fleet.py calls server1 [--reset]             SSH connections and sessions since the last reset
    fleet.py snapshot server1 [--exclude PATH]   every file where the login may write, as JSON
    fleet.py status | down                       see them | end them and remove all they had

`fleet.py up --help` says what a server can be asked to have, or to lack; each option may stand in a spec file too.

By default bubblewrap makes the servers out of this machine's own system. With --backend podman or docker they are
containers of another one (--image), and what they are asked to lack is really absent; images stay when they go.

A server has its own address, host key, host name, HOME, /tmp, /var/tmp, accounts and processes; of the controller it
sees only the system's folders, read-only. Started as root, the servers run as an ordinary user id all the same: nobody
becomes root of this machine from there. Everything lives in the state folder (--state, by default .fleet/default).

    <state>/fleet.json  client_key  known_hosts  inventory.yml  cp/ (SSH connections that are kept open)
    <state>/homes/<server or group>/             HOME, shared by the servers of a group
    <state>/servers/<server>/{tmp,var_tmp,data}/ its /tmp and /var/tmp, and the folder of option --data
    <state>/servers/<server>/run/                read-only on the server: accounts, host key, sshd's settings
    <state>/servers/<server>/{log,process.json}  sshd's log, and what bubblewrap says about its process

This machine opens the servers' addresses itself or lends them to containers (--network host): all are in 127.77.0.0/16.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from containers import Containers
from sandbox import (
    LOGIN,
    LOGIN_ID,
    PORT,
    WHO,
    Backend,
    Bubblewrap,
    FleetError,
    Python,
    Server,
    find_program,
    read_spec,
    server_options,
    servers_from_spec,
)

REPOSITORY = Path(__file__).resolve().parents[2]
FIRST_PROGRAM = Path(__file__).resolve().with_name("first_program.py")

BACKENDS = ("bubblewrap", "podman", "docker")
END_THEM = "End them first: fleet.py down --state {state}"
ADDRESSES = "127.77"  # <ADDRESSES>.<fleet>.<server>: loopback, so reachable from this machine only
FOREIGN_GROUP = 65534  # how a sandbox shows the starter's other groups, which it cannot give up without root

SSHD_CONFIG = f"""\
Port {PORT}
HostKey {{run}}/host_key
AuthorizedKeysFile {{run}}/authorized_keys
AuthenticationMethods publickey
AcceptEnv LANG LC_*
PrintMotd no
# Root's folders belong to nobody in a sandbox, and PAM needs root.
StrictModes no
UsePAM no
# `fleet.py calls` counts its lines.
LogLevel VERBOSE
"""

LOGIN_SHELL = """\
#!/bin/sh
# sshd itself widens an inherited umask to 0022 at least. It gives a command as arguments, an interactive login none.
umask {umask}
export SHELL={shell}
[ $# -gt 0 ] || set -- -l
exec {shell} "$@"
"""


# --- The fleet ----------------------------------------------------------------------------------------------------


class Fleet:
    """The servers of one state folder."""

    def __init__(self, state: Path, backend: str | None = None, image: str | None = None) -> None:
        self.state = state.resolve()
        self.backend, self.image = backend or BACKENDS[0], image
        self.servers: dict[str, Server] = {}
        self.network: int | None = None
        if self._file.exists():
            stored = json.loads(self._file.read_text())
            self.network = stored["network"]
            self.servers = {server.name: server for server in servers_from_spec(stored)}
            self.backend, self.image = stored["backend"], stored["image"]
            if (backend or self.backend, image or self.image) != (self.backend, self.image):
                raise FleetError(f"{self.state} holds other servers, of {self.backend}. {END_THEM.format(state=state)}")
        if self.image and self.backend == "bubblewrap":
            raise FleetError("An image is for containers: --backend podman, or --backend docker.")

    @property
    def _backend(self) -> Backend:
        if self.backend == "bubblewrap":
            return Bubblewrap()
        return Containers(self.backend, self.image or Containers.image)

    @property
    def _file(self) -> Path:
        return self.state / "fleet.json"

    @property
    def _client_key(self) -> Path:
        return self.state / "client_key"

    @property
    def _sockets(self) -> Path:
        return self.state / "cp"

    def folder(self, server: Server) -> Path:
        return self.state / "servers" / server.name

    def address(self, server: Server) -> str:
        return f"{ADDRESSES}.{self.network}.{1 + list(self.servers).index(server.name)}"

    def accounts(self, server: Server) -> list[Server]:
        """All accounts of a server's machine, the first one first."""
        return [other for other in self.servers.values() if other.host == server.host]

    def number(self, server: Server) -> int:
        """0 for a machine's first account, 1 for its second …: what its user ids have above the first one's."""
        return self.accounts(server).index(server)

    def named(self, name: str) -> Server:
        try:
            return self.servers[name]
        except KeyError:
            known = ", ".join(self.servers) or "none; start some: fleet.py up"
            raise FleetError(f"No server {name!r} in {self.state}. Its servers: {known}.") from None

    def store(self) -> None:
        """Write fleet.json, by rename: a reader never sees half of it."""
        options = {
            server.name: {
                field.name: value
                for field in server_options()
                if (value := getattr(server, field.name)) != getattr(Server("default"), field.name)
            }
            for server in self.servers.values()
        }
        draft = self._file.with_suffix(".new")
        stored = {"network": self.network, "backend": self.backend, "image": self.image, "servers": options}
        draft.write_text(json.dumps(stored, indent=2) + "\n")
        draft.rename(self._file)

    # Starting

    def probe(self) -> None:
        """Raise FleetError with cause and remedy unless the backend can start servers on this machine."""
        self._backend.check([Server("probe")])

    def up(self, wanted: Sequence[Server]) -> None:
        """Start the wanted servers that do not run yet, and prove each by logging in. Raises FleetError."""
        for program in ("ssh", "ssh-keygen"):
            find_program(program)
        check_together(wanted)
        servers = {server.name: server for server in wanted}
        if self.servers and self.servers != servers:
            raise FleetError(f"{self.state} holds other servers. {END_THEM.format(state=self.state)}")
        self._backend.check(wanted)
        self.servers = servers
        make_key(self._client_key, LOGIN)
        self._sockets.mkdir(mode=0o700, exist_ok=True)

        missing = [server for server in wanted if not self.process_id(server)]
        listeners = self._listen(missing)
        for server in missing:
            self._prepare(server)
        if not self._backend.inherits_listener:
            for listener in listeners:
                listener.close()
        for server, listener in zip(missing, listeners, strict=True):
            self._backend.start(self.state, server, self.accounts(server), listener)
            listener.close()
        if not self._backend.inherits_listener:
            for server in missing:
                await_connections(self.address(server), functools.partial(self.process_id, server))
        known = [f"[{self.address(s)}]:{PORT} {(self.folder(s) / 'run/host_key.pub').read_text()}" for s in wanted]
        (self.state / "known_hosts").write_text("".join(known))
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(self.verify, wanted))
        for server in missing:
            self.reset_calls(server)

    def _listen(self, missing: Sequence[Server]) -> list[socket.socket]:
        """Open the listening sockets; a new fleet takes the first 127.77.x that no other fleet listens on."""
        start = zlib.crc32(str(self.state).encode())  # far from other state folders' fleets
        candidates = [1 + (start + offset) % 254 for offset in range(254)]
        refused: OSError | None = None
        for candidate in candidates if self.network is None else [self.network]:
            self.network = candidate
            with contextlib.ExitStack() as opened:
                try:
                    listeners = []
                    for server in missing:
                        listener = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        listener.bind((self.address(server), PORT))
                        listen(listener, server)
                        listeners.append(listener)
                except OSError as error:
                    refused = error
                    continue
                opened.pop_all()
                self.store()
                return listeners
        raise FleetError(f"No free address {ADDRESSES}.x.y with port {PORT}: {refused}")

    def _prepare(self, server: Server) -> None:
        """Make a server's folders and the files that it sees in /run/fleet and /etc."""
        own = self.folder(server)
        run = own / "run"
        python = Python.of(server)
        home = self.state / "homes" / server.home_folder
        for folder in (run / "home", home, own / "tmp", own / "var_tmp", own / "data"):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (own / "tmp", own / "var_tmp"):
            folder.chmod(0o1777)
        make_key(run / "host_key", server.name)
        make_skeleton(run / "home", server.home_files)
        passwd, group = "root:x:0:0:root:/root:/bin/bash\n", "root:x:0:\n"
        for account in self.accounts(server):
            shell = f"{self._backend.run_folder(account)}/login_shell" if account.umask else account.shell
            number = LOGIN_ID + self.number(account)
            passwd += f"{account.login}:x:{number}:{number}::{account.home}:{shell}\n"
            group += f"{account.login}:x:{number}:\n"
        files = {
            "authorized_keys": self._client_key.with_suffix(".pub").read_text(),
            "sshd_config": SSHD_CONFIG.format(run=self._backend.run_folder(server))
            + f"ListenAddress {self.address(server)}\n"
            + session_settings(server),
            "passwd": passwd,
            "group": group,
            "hosts": f"127.0.0.1 localhost\n{self.address(server)} {server.host}\n",
            "hostname": f"{server.host}\n",
            "empty": "",
            "python": f'#!/bin/sh\nexec {python.program} "$@"\n' if python else "",
            "login_shell": LOGIN_SHELL.format(umask=server.umask, shell=server.shell) if server.umask else "",
            "first_program.py": FIRST_PROGRAM.read_text(),
        }
        for name, text in files.items():
            (run / name).write_text(text)
        for name in ("python", "login_shell"):
            (run / name).chmod(0o755)
        for folder in (self.state, self.state / "homes", self.state / "servers", own, run):
            folder.chmod(0o755)  # whatever root's umask is
        if os.geteuid() == 0:
            owner = self._backend.first_id + self.number(server)  # but /tmp stays root's, as elsewhere
            for path in (home, own / "data", run, *run.rglob("*")):
                os.chown(path, owner, owner, follow_symlinks=False)

    def verify(self, server: Server) -> None:
        """Log in, and compare what the account is with what it must be. Raises FleetError, with the server's log."""
        if server.unreachable:
            verify_unreachable(server, self.address(server))
            return
        login = self.ssh(server, "-o", "BatchMode=yes", "-o", "ConnectTimeout=15")
        # What is in HOME or in the environment may spoil or swallow what a login shell says: then log in without one.
        silent = bool(server.home_files or server.environment)
        login += ["-s", "sftp"] if silent else ["--", f"exec sh -c '{WHO}'"]
        answer = subprocess.run(login, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        log = (self.folder(server) / "log").read_text()
        said = account_in_log(log) if silent else answer.stdout
        *account, groups = said.splitlines() or [""]
        own_id = str(LOGIN_ID + self.number(server))
        ordinary = [server.login, own_id, server.home, server.host, "plain"]
        if answer.returncode == 0 and account == ordinary and set(groups.split()) <= {own_id, str(FOREIGN_GROUP)}:
            return
        raise FleetError(
            f"{server.name} does not answer as an account without privileges. Its log, {self.folder(server)}/log:\n"
            f"{log.strip()}\nThe login said (exit status {answer.returncode}):\n{(said + answer.stderr).strip()}"
        )

    # Using

    def ssh(self, server: Server, *extra: str) -> list[str]:
        """The ssh command for a login, up to the host; no settings or keys of the person who runs it take part."""
        target = ["-p", str(PORT), "-i", str(self._client_key), f"{server.login}@{self.address(server)}"]
        return [find_program("ssh"), *ssh_options(self.state / "known_hosts"), *extra, *target]

    def process_id(self, server: Server) -> int | None:
        """Process id of a server's first process as this machine counts, or None when it does not run."""
        return self._backend.process(self.state, server)

    def _first(self, server: Server) -> int:
        """As process_id. Raises FleetError where the server does not run."""
        first = self.process_id(server)
        if not first:
            raise FleetError(f"{server.name} does not run. Start it: fleet.py up")
        return first

    def inventory(self, groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """An Ansible inventory; `groups` maps a group to its servers, or to nothing for all of them."""
        options = ssh_options(self.state / "known_hosts")
        # A unix socket's path has at most 107 bytes; an address has 14, and while ssh opens it 17 more.
        reusable = len(os.fsencode(self._sockets)) + 1 + 14 + 17 <= 107
        # Named here, not left to Ansible: testinfra, which takes these arguments too, then uses the same connection.
        options += ["-o", f'ControlPath="{self._sockets}/%h"' if reusable else "ControlPath=none"]
        every: dict[str, Any] = {
            "ansible_user": LOGIN,
            "ansible_port": PORT,
            "ansible_ssh_private_key_file": str(self._client_key),
            "ansible_ssh_common_args": shlex.join(options),
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        shared = [server.name for server in self.servers.values() if server.shared_home]
        members = dict(groups) | ({"shared_home": shared} if shared else {})
        return {
            "all": {
                "vars": every,
                "hosts": {server.name: self._host_variables(server) for server in self.servers.values()},
                "children": {
                    group: {"hosts": {self.named(name).name: {} for name in names or self.servers}}
                    for group, names in members.items()
                },
            }
        }

    def _host_variables(self, server: Server) -> dict[str, str]:
        """What an inventory says of one server only."""
        login = {} if server.login == LOGIN else {"ansible_user": server.login}
        return {"ansible_host": self.address(server), **login}

    def calls(self, server: Server) -> dict[str, int]:
        """SSH connections and sessions (commands, shells, file transfers) since the last reset."""
        start = self.folder(server) / "calls_from"
        with (self.folder(server) / "log").open("rb") as log:
            log.seek(int(start.read_text()) if start.exists() else 0)
            return count_calls(log.read().decode(errors="replace"))

    def reset_calls(self, server: Server) -> None:
        """Count from here on."""
        (self.folder(server) / "calls_from").write_text(str((self.folder(server) / "log").stat().st_size))

    def snapshot(self, server: Server, exclude: Sequence[str]) -> dict[str, dict[str, Any]]:
        """All that lies where the login may write, as `list_tree` describes it, seen from outside: no login needed."""
        process = self._first(server)
        found: dict[str, dict[str, Any]] = {}
        for top in filter(None, (server.home, "/tmp", "/var/tmp", server.data)):
            found |= list_tree(Path(f"/proc/{process}/root"), top, exclude)
        return found

    def at_work(self, server: Server) -> list[str]:
        """Command lines of what Ansible runs on a server, in the order of their process ids.

        Told from people's own programs by TMPDIR, which playbooks set, be it to nothing.
        """
        found = []
        own = Path(f"/proc/{self._first(server)}/root/proc")  # holds few processes: quickly read, again and again
        for process in sorted(int(path.name) for path in own.glob("[0-9]*")):
            with contextlib.suppress(OSError):
                if b"\0TMPDIR=" in b"\0" + (own / f"{process}/environ").read_bytes():
                    found.append((own / f"{process}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip())
        return found

    # Ending

    def kill_all(self, server: Server) -> None:
        """End with SIGKILL every process of a server but those that make it one.

        As when the machine fails, except that it answers again at once.
        """
        first = self._first(server)
        while found := processes_beside(first):  # one that was starting may have left a child
            for process in found:
                with contextlib.suppress(OSError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.01)

    def down(self) -> None:
        """End every server of the state folder, also those of a start that broke off, and remove the folder."""
        if any(self.state.iterdir()) and not self._client_key.exists():  # the key is the first thing that `up` makes
            raise FleetError(f"{self.state} holds no fleet; it is left alone.")
        self._backend.stop(self.state)
        remove_tree(self.state)


# --- Helpers ------------------------------------------------------------------------------------------------------


def make_key(path: Path, comment: str) -> None:
    """Make an SSH key pair, `path` and `path`.pub, unless it is there."""
    if not path.exists():
        command = [find_program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
        made = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if made.returncode != 0:
            raise FleetError(f"ssh-keygen could not make {path}: {(made.stdout + made.stderr).strip()}")


def make_skeleton(folder: Path, files: Mapping[str, str]) -> None:
    """Fill the folder that a new HOME is a copy of: what useradd would have put there, and these files."""
    if os.path.isdir("/etc/skel"):
        shutil.copytree("/etc/skel", folder, symlinks=True, dirs_exist_ok=True)
    folder.chmod(0o700)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def session_settings(server: Server) -> str:
    """sshd's settings for the sessions of one server's account."""
    settings = f"AllowUsers {server.login}\n"
    settings += f"Subsystem sftp internal-sftp{f' -u {server.umask}' if server.umask else ''}\n"
    if server.environment:
        escaped = [re.sub(r'(["\\])', r"\\\1", f"{name}={value}") for name, value in server.environment.items()]
        settings += "SetEnv " + " ".join(f'"{text}"' for text in escaped) + "\n"  # of several lines, only one counts
    return settings


def check_together(servers: Sequence[Server]) -> None:
    """Raise FleetError when servers ask for what they cannot have at the same time."""
    homes: dict[str, Server] = {}
    machines = {server.name: server for server in servers if not server.account_of}
    for server in servers:
        if server.account_of and server.account_of not in machines:
            raise FleetError(
                f"{server.name} is to be an account of {server.account_of}, which is no server of its own."
            )
        if server.account_of and os.geteuid() != 0:
            raise FleetError(
                f"{server.name}: two accounts take two user ids, which only root can give. Run it as root."
            )
        same = [other for other in servers if other.host == server.host and other is not server]
        if any(other.login == server.login or other.home == server.home for other in same):
            raise FleetError(f"{server.name}: each account of {server.host} needs a login and a home of its own.")
        other = homes.setdefault(server.home_folder, server)
        if server.home_files != other.home_files:
            raise FleetError(f"{other.name} and {server.name} share a HOME: give both the same home_files.")


def listen(listener: socket.socket, server: Server) -> None:
    """Open a server's bound socket for connections, or make it refuse or drop them."""
    if server.unreachable == "refuses":
        return  # bound, so that nobody else takes the address, but not listening
    listener.listen(0 if server.unreachable else 64)
    if server.unreachable == "drops":
        for _ in range(8):  # with its queue full, the kernel answers no further connection
            with contextlib.suppress(TimeoutError):
                socket.create_connection(listener.getsockname(), timeout=0.2).close()
                continue
            break


def await_connections(address: str, alive: Callable[[], object]) -> None:
    """Wait until a server listens, or ends; `verify` then tells which."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and alive():
        with contextlib.suppress(OSError):
            socket.create_connection((address, PORT), timeout=1).close()
            return
        time.sleep(0.1)


def verify_unreachable(server: Server, address: str) -> None:
    """Raise FleetError unless a connection fails in the way that was asked for."""
    try:
        socket.create_connection((address, PORT), timeout=1).close()
        seen = "accepts"
    except ConnectionRefusedError:
        seen = "refuses"
    except TimeoutError:
        seen = "drops"
    if seen != server.unreachable:
        raise FleetError(f"{server.name} {seen} connections, where it was to be unreachable: {server.unreachable}.")


def ssh_options(known_hosts: Path) -> list[str]:
    """Options with which only the fleet's own host keys count, and no file of the person who runs it is read."""
    trusted = f'UserKnownHostsFile="{known_hosts}"'
    settings = (trusted, "GlobalKnownHostsFile=none", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes")
    return ["-F", "none", *(word for setting in settings for word in ("-o", setting))]


def account_in_log(log: str) -> str:
    """What the first program, from which every session descends, last said of its own account."""
    said = [line.removeprefix("Account: ") for line in log.splitlines() if line.startswith("Account: ")]
    return said[-1].replace("|", "\n") if said else ""


def processes_beside(first: int) -> list[int]:
    """Processes that live in the sandbox whose first process is `first`, without that one and the first program."""
    sandbox, found = os.readlink(f"/proc/{first}/ns/pid"), []
    for process in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{process}/status").read_text()
            inner = int(next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1])
            if os.readlink(f"/proc/{process}/ns/pid") == sandbox and inner > 2:
                found.append(process)
    return found


def count_calls(log: str) -> dict[str, int]:
    """Count logins and sessions in what sshd logged at level VERBOSE."""
    lines = log.splitlines()
    return {
        "connections": sum(line.startswith("Accepted publickey ") for line in lines),
        "sessions": sum(line.startswith("Starting session: ") for line in lines),
    }


def list_tree(root: Path, top: str, exclude: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Describe everything below `root`/`top`, by its path as the server sees it.

    Each entry: type ("file", "dir", "link", "other"), mode (octal), and except for folders size (bytes) and mtime_ns;
    a link's target. A folder's own time changes with each entry, so it is left out. What lies at or below a path of
    `exclude` is not listed.
    """
    found: dict[str, dict[str, Any]] = {}

    def excluded(path: str) -> bool:
        return any(path == one.rstrip("/") or path.startswith(one.rstrip("/") + "/") for one in exclude)

    def visit(path: str) -> None:
        for entry in sorted(os.listdir(f"{root}{path}")):
            inner = f"{path}/{entry}"
            if excluded(inner):
                continue
            status = os.lstat(f"{root}{inner}")
            kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link"}
            kind = kinds.get(stat.S_IFMT(status.st_mode), "other")
            found[inner] = {"type": kind, "mode": f"{stat.S_IMODE(status.st_mode):04o}"}
            if kind == "link":
                found[inner]["target"] = os.readlink(f"{root}{inner}")
            if kind == "dir":
                visit(inner)
            else:
                found[inner] |= {"size": status.st_size, "mtime_ns": status.st_mtime_ns}

    if not excluded(top):
        visit(top)
    return found


def remove_tree(top: Path) -> None:
    """Remove a folder with all below it, also read-only folders (an install is one)."""
    top.chmod(0o700)
    for folder, names, _ in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
    shutil.rmtree(top)


@contextlib.contextmanager
def locked(state: Path) -> Iterator[None]:
    """Let one program at a time change a state folder; another one waits.

    The lock is on the folder itself, which `down` removes: whoever waited for a removed folder makes a new one.
    """
    while True:
        state.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(state, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if state.exists() and os.path.samestat(os.fstat(descriptor), state.stat()):
                yield
                return
        finally:
            os.close(descriptor)


# --- The command line ---------------------------------------------------------------------------------------------


def parse_groups(given: Sequence[str]) -> dict[str, list[str]]:
    """Read NAME (all servers) and NAME=server1,server2."""
    groups: dict[str, list[str]] = {}
    for text in given:
        name, _, servers = text.partition("=")
        groups[name] = [server for server in servers.split(",") if server]
    return groups


def servers_from_options(options: argparse.Namespace) -> list[Server]:
    """Servers server1 … serverN with the same options; the first `--shared-home` of them share a HOME."""
    names = [field.name for field in server_options() if not field.metadata["spec_only"]]
    given = {name: getattr(options, name) for name in names if name != "shared_home"}
    given |= {name: dict(pairs) for name, pairs in given.items() if isinstance(pairs, list)}
    return [
        Server(
            name=f"server{number}",
            **given | ({"shared_home": "shared", "home_size": None} if number <= options.shared_home else {}),
        )
        for number in range(1, options.servers + 1)
    ]


def name_and_value(text: str) -> tuple[str, str]:
    """Read NAME=VALUE."""
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def add_server_options(up: argparse.ArgumentParser) -> None:
    """An argument for each field of Server. A field that is true by default is taken away with --no-<field>."""
    nothing = Server("default")
    for field in server_options():
        flag, default = "--" + field.name.replace("_", "-"), getattr(nothing, field.name)
        told: dict[str, Any] = {"dest": field.name, "help": field.metadata["help"], "default": default}
        if field.metadata["spec_only"]:
            continue
        if field.name == "shared_home":
            up.add_argument(flag, type=int, default=0, metavar="N", help="the first N share one HOME, as over NFS")
        elif default is True:
            up.add_argument(flag.replace("--", "--no-", 1), action="store_false", **told)
        elif default is False:
            up.add_argument(flag, action="store_true", **told)
        elif default == {}:
            told |= {"default": [], "metavar": field.metadata["metavar"], "help": f"{told['help']} (may be repeated)"}
            up.add_argument(flag, action="append", type=name_and_value, **told)
        else:
            kind = int if field.metadata["metavar"] == "BYTES" else str
            up.add_argument(flag, type=kind, metavar=field.metadata["metavar"], **told)


def parser() -> argparse.ArgumentParser:
    commands = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = commands.add_subparsers(dest="verb", required=True)

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text)
        added.add_argument("--state", type=Path, default=REPOSITORY / ".fleet" / "default", help="the state folder")
        return added

    up = verb("up", "start servers; those that already run are left alone")
    up.add_argument("--backend", choices=BACKENDS, help=f"what makes the servers (default {BACKENDS[0]})")
    up.add_argument("--image", help=f"what containers are built from: a Debian or Ubuntu (default {Containers.image})")
    up.add_argument("--spec", type=Path, help="JSON or YAML: {servers: {name: {option: value}}}; instead of the rest")
    up.add_argument("--servers", type=int, default=1, metavar="N", help="how many: server1 … serverN (default 1)")
    add_server_options(up)
    spec_only = [field for field in server_options() if field.metadata["spec_only"]]
    up.epilog = "Only in a spec file: " + "; ".join(f"{field.name}, {field.metadata['help']}" for field in spec_only)
    verb("down", "end the servers and remove all they had")
    verb("status", "list the servers; exit status 1 when one is down")
    probe = verb("probe", "say whether servers can be started on this machine")
    probe.add_argument("--backend", choices=BACKENDS, help=f"by what (default {BACKENDS[0]})")
    inventory = verb("inventory", "write an inventory for ansible-playbook -i")
    inventory.add_argument("--group", action="append", default=[], metavar="NAME[=SERVER,…]", help="put servers in it")
    inventory.add_argument("--output", type=Path, help="default: inventory.yml in the state folder")
    calls = verb("calls", "count SSH connections and sessions since the last reset")
    calls.add_argument("server")
    calls.add_argument("--reset", action="store_true", help="start counting anew")
    snapshot = verb("snapshot", "list all files where the login may write, as JSON")
    snapshot.add_argument("server")
    snapshot.add_argument("--exclude", action="append", default=[], metavar="PATH", help="leave out what is below it")
    shell = verb("shell", "log in, or run a command there")
    shell.add_argument("server")
    shell.add_argument("command", nargs=argparse.REMAINDER)
    return commands


def run(options: argparse.Namespace) -> int:
    """Do what the command line asks for; returns the exit status."""
    if options.verb == "probe":
        Fleet(options.state, options.backend).probe()
        return 0
    if options.verb == "down":
        if options.state.exists():
            with locked(options.state):
                Fleet(options.state).down()
        return 0
    if options.verb == "up":
        wanted = servers_from_spec(read_spec(options.spec)) if options.spec else servers_from_options(options)
        with locked(options.state):
            fleet = Fleet(options.state, options.backend, options.image)
            fleet.up(wanted)
        print_status(fleet)
        return 0

    fleet = Fleet(options.state)
    if options.verb == "status":
        return print_status(fleet)
    if options.verb == "inventory":
        output: Path = options.output or fleet.state / "inventory.yml"
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(fleet.inventory(parse_groups(options.group)), indent=2) + "\n")  # JSON is YAML
        print(output)
        return 0
    server = fleet.named(options.server)
    if options.verb == "calls":
        print(json.dumps(fleet.calls(server)))
        if options.reset:
            fleet.reset_calls(server)
    elif options.verb == "snapshot":
        print(json.dumps(fleet.snapshot(server, options.exclude), indent=1))
    elif options.verb == "shell":
        login = fleet.ssh(server, *(["-t"] if sys.stdin and sys.stdin.isatty() else []))
        os.execv(login[0], [*login, *options.command])
    return 0


def print_status(fleet: Fleet) -> int:
    down = 0
    if not fleet.servers:
        print(f"no servers in {fleet.state}")
    for server in fleet.servers.values():
        process = fleet.process_id(server)
        down += not process
        state = f"pid {process}" if process else "down"
        shared = f"  HOME shared as {server.shared_home}" if server.shared_home else ""
        closed = f"  {server.unreachable} connections" if server.unreachable else ""
        print(f"{server.name}  {server.login}@{fleet.address(server)}:{PORT}  {state}{shared}{closed}")
    return 1 if down else 0


def main() -> int:
    try:
        return run(parser().parse_args())
    except FleetError as error:
        print(f"fleet: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
