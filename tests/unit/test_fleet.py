"""The throwaway servers keep what their users (the demo, Molecule, other tests) rely on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import fleet
import pytest
from sandbox import (
    PORT,
    Bubblewrap,
    FleetError,
    Python,
    Server,
    read_spec,
    sandbox_arguments,
    server_process,
    servers_from_spec,
)

SSHD_LOG = """\
Connection from 127.0.0.1 port 53804 on 127.77.120.1 port 22022 rdomain ""
Accepted key ED25519 SHA256:abc found at /run/fleet/authorized_keys:1
Postponed publickey for researcher from 127.0.0.1 port 53804 ssh2 [preauth]
Accepted publickey for researcher from 127.0.0.1 port 53804 ssh2: ED25519 SHA256:abc
Starting session: command for researcher from 127.0.0.1 port 53804 id 0
Starting session: subsystem 'sftp' for researcher from 127.0.0.1 port 53804 id 0
Close session: user researcher from 127.0.0.1 port 53804 id 0
"""


def test_calls_count_logins_and_sessions() -> None:
    assert fleet.count_calls(SSHD_LOG) == {"connections": 1, "sessions": 2}


def test_spec_gives_servers(tmp_path: Path) -> None:
    (tmp_path / "spec.yml").write_text("servers:\n  gpu1: {shared_home: lab}\n  gpu2:\n")
    assert servers_from_spec(read_spec(tmp_path / "spec.yml")) == [Server("gpu1", shared_home="lab"), Server("gpu2")]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "names no server"),
        ({"servers": {"a": {"compilers": False}}}, "a: unknown compilers"),
        ({"servers": {"a/b": {}}}, "no host name"),
        ({"servers": {"a": {"home": "/root"}}}, "home must lie in /home"),
        ({"servers": {"a": {"home_size": 1, "shared_home": "lab"}}}, "cannot be shared"),
        ({"servers": {"a": {"read_only_home": True, "shared_home": "lab"}}}, "cannot be shared"),
        ({"servers": {"a": {"read_only_home": True, "home_size": 1}}}, "needs no home_size"),
        ({"servers": {"a": {"home_files": {"../.bashrc": ""}}}}, "is not a path in HOME"),
        ({"servers": {"a": {"data": "/usr/data"}}}, "data must be a folder in /data"),
        ({"servers": {"a": {"data_size": 1}}}, "data_size needs data"),
        ({"servers": {"a": {"shell": "zsh"}}}, "shell must be a path"),
        ({"servers": {"a": {"umask": 77}}}, "octal digits in quotes"),
        ({"servers": {"a": {"environment": {"A-B": "c"}}}}, "sshd cannot set 'A-B'"),
        ({"servers": {"a": {"unreachable": "yes"}}}, "must be refuses or drops"),
        ({"servers": {"a": {"login": "Jo Doe"}}}, "is no account's name"),
        ({"servers": {"a": {"login": "jo"}}}, "jo needs a home of its own"),
        ({"servers": {"a": {"account_of": "b", "home_size": 1}}}, "neither shared_home nor home_size"),
    ],
)
def test_bad_spec_is_refused_by_name(spec: dict[str, object], message: str) -> None:
    with pytest.raises(FleetError, match=message):
        servers_from_spec(spec)


def test_command_line_can_ask_for_all_that_a_spec_can() -> None:
    asked = (
        "up --servers 2 --shared-home 1 --home /home/me --home-size 5 --home-files .a=b=c --home-files .d= "
        "--data /data/me --data-size 6 --shell /bin/csh --umask 0077 --environment A=b --no-compiler --no-git "
        "--no-network --python none --unreachable drops"
    )
    first, second = fleet.servers_from_options(fleet.parser().parse_args(asked.split()))
    assert (first.shared_home, first.home_size) == ("shared", None)
    assert second == Server(
        "server2",
        home="/home/me",
        home_size=5,
        home_files={".a": "b=c", ".d": ""},
        data="/data/me",
        data_size=6,
        shell="/bin/csh",
        umask="0077",
        environment={"A": "b"},
        compiler=False,
        git=False,
        network=False,
        python="none",
        unreachable="drops",
    )
    [read_only] = fleet.servers_from_options(fleet.parser().parse_args(["up", "--read-only-home"]))
    assert read_only == Server("server1", read_only_home=True)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (Server("b", shared_home="lab", home_files={".bashrc": ""}), "a and b share a HOME"),
        (Server("b", account_of="c"), "an account of c, which is no server of its own"),
        (Server("b", account_of="a"), "needs a login and a home of its own"),
        (Server("b", account_of="a", login="jo", home="/home/jo"), "only root can give"),
    ],
)
def test_what_servers_cannot_have_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: Server, message: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000 if second.login == "jo" else 0)
    with pytest.raises(FleetError, match=message):
        fleet.check_together([Server("a", shared_home="lab"), second])


def test_shell_that_is_not_there_is_refused() -> None:
    with pytest.raises(FleetError, match="a: shell /bin/nosh is not installed"):
        Bubblewrap().check([Server("a", shell="/bin/nosh")])


def test_python_that_does_not_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="does not run"):
        Python.of(Server("a", python=str(tmp_path / "python3")))


def test_sandbox_shows_only_system_folders() -> None:
    arguments = sandbox_arguments(Server("a"), "/state", None)
    shown = {arguments[at + 1] for at, word in enumerate(arguments) if word in ("--bind", "--ro-bind")}
    assert {path.split("/")[1] for path in shown} <= {
        "state",
        "usr",
        "bin",
        "sbin",
        "lib",
        "lib32",
        "lib64",
        "etc",
        "sys",
    }


def test_groups_name_all_servers_or_some() -> None:
    assert fleet.parse_groups(["all_of_them", "two=a,b"]) == {"all_of_them": [], "two": ["a", "b"]}


def test_tree_lists_files_with_their_times_and_leaves_out_what_is_excluded(tmp_path: Path) -> None:
    (tmp_path / "home/kept").mkdir(parents=True)
    (tmp_path / "home/kept/file").write_text("1234")
    (tmp_path / "home/kept/link").symlink_to("file")
    (tmp_path / "home/prefix/opt").mkdir(parents=True)
    (tmp_path / "home/prefix2").touch()
    os.utime(tmp_path / "home/kept/file", ns=(1, 2))
    listed = fleet.list_tree(tmp_path, "/home", ["/home/prefix/"])
    assert list(listed) == ["/home/kept", "/home/kept/file", "/home/kept/link", "/home/prefix2"]
    assert listed["/home/kept/file"] == {"type": "file", "mode": "0644", "size": 4, "mtime_ns": 2}
    assert listed["/home/kept/link"]["target"] == "file"
    assert "mtime_ns" not in listed["/home/kept"]


def test_read_only_folders_are_removed_and_links_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").touch()
    (tmp_path / "state/install/lib").mkdir(parents=True)
    (tmp_path / "state/install/lib/file").touch()
    (tmp_path / "state/install/away").symlink_to(tmp_path / "outside")
    (tmp_path / "state/install/lib").chmod(0o555)
    (tmp_path / "state/install").chmod(0o555)
    fleet.remove_tree(tmp_path / "state")
    assert not (tmp_path / "state").exists()
    assert (tmp_path / "outside/file").exists()


def test_process_of_another_program_is_not_taken_for_a_server(tmp_path: Path) -> None:
    (tmp_path / "process.json").write_text(json.dumps({"child-pid": os.getpid()}))
    assert server_process(tmp_path) is None


def test_down_leaves_a_folder_alone_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FleetError, match="left alone"):
        fleet.Fleet(tmp_path).down()
    assert (tmp_path / "thesis.tex").exists()


def test_socket_paths_that_are_too_long_are_not_used(tmp_path: Path) -> None:
    def arguments(state: Path) -> str:
        return str(fleet.Fleet(state).inventory({})["all"]["vars"]["ansible_ssh_common_args"])

    assert 'ControlPath="/short/cp/%h"' in arguments(Path("/short"))
    assert "ControlPath=none" in arguments(tmp_path / ("long" * 30))


# --- On real servers ----------------------------------------------------------------------------------------------

OLD_PYTHON = """\
#!/bin/sh
case "$1" in -c) echo {prefix}; echo python{version} ;; *) echo "Python {version}.18" ;; esac
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fleet.Fleet]:
    """Two servers that share a home, one that lacks nearly everything, and others with one oddity each; up for real."""
    top = tmp_path_factory.mktemp("f")
    old = {version: top / f"old/bin/python{version}" for version in ("2.7", "3.6")}
    for version, program in old.items():
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(OLD_PYTHON.format(prefix=top / "old", version=version))
        program.chmod(0o755)
    wanted = [
        Server("first", shared_home="lab"),
        Server("second", shared_home="lab"),
        Server("bare", home="/home/a b", home_size=1 << 20, compiler=False, git=False, network=False, python="none"),
        Server("old", python=str(old["3.6"])),
        Server("ancient", python=str(old["2.7"])),
        Server("odd", shell="/bin/csh", umask="0002", read_only_home=True, data="/data/me", data_size=1 << 20),
        Server("spoilt", home_files={".bashrc": "exec sh\n"}, environment={"LD_LIBRARY_PATH": "", "A": '1 "2\\'}),
        Server("gone", unreachable="refuses"),
        Server("mute", unreachable="drops"),
    ]
    (top / "state").mkdir()
    started = fleet.Fleet(top / "state")
    started.up(wanted)
    yield started
    started.down()
    assert not started.state.exists()


def on(servers: fleet.Fleet, name: str, command: str) -> str:
    """What a command prints on a server, both streams."""
    login = servers.ssh(servers.named(name))
    done = subprocess.run([*login, command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    return (done.stdout + done.stderr).strip()


def test_login_is_an_ordinary_account_that_can_write_only_where_one_can(servers: fleet.Fleet) -> None:
    assert on(servers, "first", "id -un; id -u; hostname; pwd").split() == [
        "researcher",
        "1000",
        "first",
        "/home/researcher",
    ]
    writable = on(
        servers, "first", "for d in / /etc /usr /usr/local /run /root /home ~ /tmp; do [ -w $d ] && echo $d; done"
    )
    assert writable.split() == ["/home/researcher", "/tmp"]


def test_controller_files_are_hidden(servers: fleet.Fleet) -> None:
    for path in (fleet.REPOSITORY, servers.state):
        assert "No such file" in on(servers, "first", f"ls {path}")
    assert "Permission denied" in on(servers, "first", "ls /root")


def test_servers_of_a_group_share_home_but_not_tmp(servers: fleet.Fleet) -> None:
    on(servers, "first", "touch ~/seen /tmp/seen")
    assert "seen" in on(servers, "second", "ls ~").split()
    assert "No such file" in on(servers, "second", "ls /tmp/seen")
    assert "seen" not in on(servers, "old", "ls ~")


def test_second_up_starts_nothing_new(servers: fleet.Fleet) -> None:
    before = [servers.process_id(server) for server in servers.servers.values()]
    servers.up(list(servers.servers.values()))
    assert [servers.process_id(server) for server in servers.servers.values()] == before
    with pytest.raises(FleetError, match="other servers"):
        servers.up([Server("another")])


def test_bare_server_lacks_what_it_should(servers: fleet.Fleet) -> None:
    for program in ("gcc", "cc", "git", "python3"):
        assert "Permission denied" in on(servers, "bare", f"{program} --version")
    assert "Network is unreachable" in on(servers, "bare", "exec 3<>/dev/tcp/192.0.2.1/80")
    assert "No space left" in on(servers, "bare", "head -c 2M /dev/zero > ~/file")
    assert on(servers, "bare", "pwd") == "/home/a b"


def test_old_python_stands_at_the_usual_place(servers: fleet.Fleet) -> None:
    assert on(servers, "old", "/usr/bin/python3 --version") == "Python 3.6.18"


def test_python_2_stands_where_python_is_called_python(servers: fleet.Fleet) -> None:
    assert on(servers, "ancient", "python --version; python2.7 --version").splitlines() == ["Python 2.7.18"] * 2
    assert "Permission denied" in on(servers, "ancient", "python3 --version")


def test_shell_umask_and_places_to_write_are_as_asked(servers: fleet.Fleet) -> None:
    assert on(servers, "odd", "echo $SHELL; if (1) echo csh; umask").split() == ["/bin/csh", "csh", "2"]
    assert "Read-only file system" in on(servers, "odd", "touch ~/file")
    assert "No space left" in on(servers, "odd", "head -c 2M /dev/zero > /data/me/file")
    assert on(servers, "odd", "touch /data/me/new; stat -c %a /data/me/new") == "664"
    assert "/data/me/new" in servers.snapshot(servers.named("odd"), [])


def test_login_that_answers_nothing_is_verified_all_the_same(servers: fleet.Fleet) -> None:
    assert on(servers, "spoilt", "echo heard") == ""
    servers.verify(servers.named("spoilt"))


def test_environment_reaches_every_session(servers: fleet.Fleet) -> None:
    login = servers.ssh(servers.named("spoilt"), "-T")  # the shell to which .bashrc gives way reads what is typed
    done = subprocess.run(login, input='echo "<$A>" "${LD_LIBRARY_PATH-unset}."', capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == '<1 "2\\> .'


@pytest.mark.parametrize(("name", "error"), [("gone", ConnectionRefusedError), ("mute", TimeoutError)])
def test_address_is_unreachable_in_the_way_that_was_asked_for(
    servers: fleet.Fleet, name: str, error: type[OSError]
) -> None:
    with pytest.raises(error):
        socket.create_connection((servers.address(servers.named(name)), PORT), timeout=1)
    with pytest.raises(FleetError, match="accepts connections, where it was to be unreachable"):
        fleet.verify_unreachable(servers.named(name), servers.address(servers.named("first")))


def test_second_account_shares_tmp_but_not_files(tmp_path: Path) -> None:
    wanted = [Server("lab"), Server("other", account_of="lab", login="jo", home="/home/jo", data="/data/jo")]
    started = fleet.Fleet(tmp_path / "state")
    started.state.mkdir()
    if os.geteuid() != 0:
        with pytest.raises(FleetError, match="only root can give"):
            started.up(wanted)
        return
    try:
        started.up(wanted)
        assert started.inventory({})["all"]["hosts"]["other"]["ansible_user"] == "jo"
        on(started, "lab", "umask 077; echo mine | tee ~/mine > /tmp/mine")
        assert on(started, "other", "hostname; id -un; id -u").split() == ["lab", "jo", "1001"]
        for attempt in ("cat /tmp/mine", "cat /home/researcher/mine", "touch /home/researcher/x"):
            assert "Permission denied" in on(started, "other", attempt)
        assert "Operation not permitted" in on(started, "other", "rm -f /tmp/mine")
        on(started, "other", "touch /tmp/theirs")
        assert "Operation not permitted" in on(started, "lab", "rm -f /tmp/theirs")
        assert "Permission denied" in on(started, "lab", "touch /data/jo/x")
        assert on(started, "other", "touch ~/x /data/jo/x") == ""
    finally:
        started.down()


def test_calls_of_a_server_are_counted_from_the_last_reset(servers: fleet.Fleet) -> None:
    server = servers.named("second")
    servers.reset_calls(server)
    on(servers, "second", "true")
    on(servers, "second", "true")
    assert servers.calls(server) == {"connections": 2, "sessions": 2}


def test_snapshot_sees_what_changed(servers: fleet.Fleet) -> None:
    server = servers.named("bare")
    before = servers.snapshot(server, [])
    on(servers, "bare", "mkdir ~/new /tmp/new; echo 1 > /tmp/new/file")
    after = servers.snapshot(server, ["/home/a b/new"])
    assert set(after) - set(before) == {"/tmp/new", "/tmp/new/file"}


def test_dead_server_is_started_again(servers: fleet.Fleet) -> None:
    server = servers.named("old")
    process = servers.process_id(server)
    assert process
    os.kill(process, 9)
    while servers.process_id(server):
        time.sleep(0.01)
    servers.up(list(servers.servers.values()))
    assert servers.process_id(server) not in (None, process)


def test_server_that_cannot_start_shows_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "SSHD_CONFIG", "NoSuchOption yes\n")
    broken = fleet.Fleet(tmp_path)
    try:
        with pytest.raises(FleetError, match=r"Bad configuration option: NoSuchOption"):
            broken.up([Server("broken")])
    finally:
        broken.down()
    assert not tmp_path.exists()
