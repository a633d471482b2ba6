"""Servers in containers are what the same options make of them elsewhere, and what cannot be had is said by name."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import fleet
import pytest
from containers import Containers, containerfile, first_program, image_tag, run_arguments
from sandbox import FleetError, Server

STATE = Path("/state")


class Engine:
    """Stands in for podman: notes what it is called with, and answers by the first words."""

    def __init__(self, answers: Mapping[str, tuple[int, str]]) -> None:
        self.answers = answers
        self.calls: list[str] = []

    def __call__(self, argv: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        call = " ".join(argv[1:])
        self.calls.append(call)
        status, said = next((answer for start, answer in self.answers.items() if call.startswith(start)), (0, ""))
        return subprocess.CompletedProcess(argv, status, stdout=said, stderr=said)


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: "/usr/bin/podman")


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (Server("a", network=False), "a: the backend podman cannot give network: false"),
        (Server("a", unreachable="drops"), "a: the backend podman cannot give unreachable: drops"),
        (Server("a", python="/opt/python3"), "cannot give python: /opt/python3; take an --image that has it"),
    ],
)
def test_option_that_containers_cannot_give_is_refused_by_name(server: Server, message: str) -> None:
    engine = Engine({})
    with pytest.raises(FleetError, match=message):
        Containers("podman", runner=engine).check([Server("fine"), server])
    assert engine.calls == []


def test_engine_that_is_missing_is_named_with_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(FleetError, match=r"podman is not installed(.|\n)*apt-get install podman runc(.|\n)*bubblewrap"):
        Containers("podman", runner=Engine({})).check([Server("a")])


def test_engine_that_cannot_start_containers_is_quoted_with_the_remedy() -> None:
    said = "error setting rlimit type 7: operation not permitted"
    with pytest.raises(FleetError, match=rf"{said}(.|\n)*default_ulimits(.|\n)*bubblewrap"):
        Containers("podman", runner=Engine({"run --rm": (126, said)})).check([Server("a")])


def test_image_that_cannot_be_built_is_named_with_what_the_engine_said() -> None:
    engine = Engine({"image inspect": (1, ""), "build": (1, "This image has git.")})
    with pytest.raises(FleetError, match=r"No image for a, b can be built from debian:9(.|\n)*This image has git"):
        Containers("podman", "debian:9", engine).check([Server("a", git=False), Server("b", git=False)])


def test_servers_that_are_alike_share_one_image_which_is_built_once() -> None:
    servers = [Server("a"), Server("b", shared_home="lab"), Server("c", compiler=False)]
    fresh, built = Engine({"image inspect": (1, "")}), Engine({})
    Containers("podman", runner=fresh).check(servers)
    Containers("podman", runner=built).check(servers)
    assert sum(call.startswith("build") for call in fresh.calls) == 2
    assert not any(call.startswith("build") for call in built.calls)


@pytest.mark.parametrize(
    ("server", "installed", "absent"),
    [
        (Server("a"), {"openssh-server", "python3", "gcc", "g++", "git"}, {"sudo"}),
        (Server("a", compiler=False), {"python3", "git"}, {"gcc", "cc", "g++", "clang"}),
        (Server("a", git=False, python="none"), {"gcc", "g++"}, {"git", "python3", "python"}),
        (Server("a", shell="/bin/csh"), {"csh"}, set()),
    ],
)
def test_image_has_what_is_asked_for_and_lacks_the_rest(server: Server, installed: set[str], absent: set[str]) -> None:
    _, install, lacking, shell = containerfile("debian:12-slim", server).splitlines()[0:4]
    assert installed <= set(install.split())
    assert not absent & set(install.split())
    assert absent <= set(lacking.partition(" in ")[2].partition(";")[0].split())
    assert shell == f"RUN test -x {server.shell}"


def test_another_base_or_recipe_is_another_image() -> None:
    tags = {image_tag(base, server) for base in ("x", "y") for server in (Server("a"), Server("a", git=False))}
    assert len(tags) == 4
    assert image_tag("x", Server("a")) == image_tag("x", Server("b", home="/home/b"))


def test_container_shows_the_folders_that_every_backend_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    server = Server("a", shared_home="lab", data="/data/me", data_size=7)
    arguments = run_arguments(STATE, server, [server], "image")
    volumes = [arguments[at + 1] for at, word in enumerate(arguments) if word == "--volume"]
    assert volumes == [
        "/state/servers/a/tmp:/tmp",
        "/state/servers/a/var_tmp:/var/tmp",
        "/state/servers/a/run:/run/fleet/a:ro",
        "/state/servers/a/log:/var/log/fleet/a",
        "/state/homes/lab:/home/researcher",
    ]
    assert arguments[arguments.index("--tmpfs") + 1] == "/data/me:rw,exec,size=7"
    assert arguments[arguments.index("--security-opt") + 1] == "no-new-privileges"
    assert arguments[-3:] == ["image", "sh", "/run/fleet/a/container.sh"]
    assert "--userns" not in arguments


def test_ordinary_user_keeps_own_number_for_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    arguments = run_arguments(STATE, Server("a"), [Server("a")], "image")
    assert arguments[arguments.index("--userns") + 1] == "keep-id:uid=1000,gid=1000"


def test_read_only_home_and_home_in_memory_are_mounted_as_such() -> None:
    read_only, small = Server("a", read_only_home=True), Server("b", home="/home/b b", home_size=5)
    arguments = run_arguments(STATE, read_only, [read_only, small], "image")
    assert "/state/servers/a/run/home:/home/researcher:ro" in arguments
    assert "/home/b b:rw,exec,size=5" in arguments


def test_second_account_lives_in_the_container_of_the_first(tmp_path: Path) -> None:
    first, second = Server("a"), Server("b", account_of="a", login="jo", home="/home/jo")
    engine, backend_folder = Engine({}), tmp_path / "servers"
    for name in ("a", "b"):
        (backend_folder / name / "run").mkdir(parents=True)
    backend = Containers("podman", runner=engine)
    for server in (first, second):
        backend.start(tmp_path, server, [first, second], socket.socket())
    assert [call.split()[0] for call in engine.calls] == ["rm", "run"]
    program = first_program([first, second], "/run/fleet/a")
    assert program.count("/usr/sbin/sshd -D") == 2
    assert "chown 1001:1001 /home/jo" in program
    subprocess.run(["sh", "-n"], input=program, text=True, check=True)


@pytest.mark.parametrize(("answer", "process"), [((0, "42\n"), 42), ((0, "0\n"), None), ((125, "no such"), None)])
def test_server_runs_when_its_container_does(answer: tuple[int, str], process: int | None) -> None:
    assert Containers("podman", runner=Engine({"inspect": answer})).process(STATE, Server("a")) == process


def test_only_containers_of_the_state_folder_are_removed() -> None:
    engine = Engine({"ps": (0, "1a\n2b\n")})
    Containers("podman", runner=engine).stop(STATE)
    assert engine.calls == ["ps --all --quiet --filter label=fleet=/state", "rm --force 1a 2b"]


def test_containers_that_stay_are_reported() -> None:
    with pytest.raises(FleetError, match="cannot remove the servers of /state: busy"):
        Containers("podman", runner=Engine({"ps": (0, "1a\n"), "rm": (1, "busy")})).stop(STATE)


def test_fleet_remembers_its_backend_and_refuses_another(tmp_path: Path) -> None:
    stored = {"network": 1, "backend": "podman", "image": "x", "servers": {"a": {}}}
    (tmp_path / "fleet.json").write_text(json.dumps(stored))
    assert (fleet.Fleet(tmp_path).backend, fleet.Fleet(tmp_path).image) == ("podman", "x")
    for backend, image in (("docker", None), ("podman", "y")):
        with pytest.raises(FleetError, match="holds other servers, of podman"):
            fleet.Fleet(tmp_path, backend, image)


def test_image_without_containers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="An image is for containers"):
        fleet.Fleet(tmp_path, image="debian:12-slim")
