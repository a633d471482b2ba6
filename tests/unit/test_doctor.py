"""playbooks/doctor.yml: its probe in plain shells, its filters, and the playbook on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from doctor import ASKED, doctor_asked, doctor_installed, doctor_ordered, doctor_refused, doctor_server
from preflight import CATALOGUE, preflight_findings

ROOT = Path(__file__).resolve().parents[2]
PROBE = ROOT / "files/doctor_probe.sh"
SHELLS = [shell for shell in ("sh", "dash", "bash", "ksh", "busybox") if shutil.which(shell)]
REQUIREMENTS = {
    "architecture": "x86_64",
    "glibc_min": "2.29",
    "python_min": "3.9",
    "driver_min": "384.81",
    "compute_capabilities": {"code": ["7.0"], "ptx": []},
    "needed_bytes": 5_000_000_000,
    "needed_files": 0,
    "interpreters": [],
    "build_needed": True,
}
HEALTHY = """\
architecture=x86_64
glibc=2.36
user=alice
executable=/usr/bin/python3
python=3.11.2
found=3.11.2 /usr/bin/python3
prefix=/home/alice/stack
nearest=/home/alice
writable=yes
free_bytes=90000000000
compiler_error=
driver=
"""


# --- The probe --------------------------------------------------------------------------------------------------------


def probe(shell: str, prefix: str, python: str, home: Path, path: str = os.environ["PATH"]) -> dict[str, Any]:
    command = [shutil.which(shell), *(["sh"] if shell == "busybox" else []), PROBE, prefix, python]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env={"HOME": str(home), "PATH": path}
    )
    assert (done.returncode, done.stderr) == (0, "")
    return doctor_server(done.stdout)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_probe_says_what_python_says(shell: str, tmp_path: Path) -> None:
    server = probe(shell, "~/not/yet", sys.executable, tmp_path)
    version = ".".join(map(str, sys.version_info[:3]))
    assert server["architecture"] == os.uname().machine
    assert server["glibc"] == (os.confstr("CS_GNU_LIBC_VERSION") or "").split()[1]
    assert server["python"] == {"version": version, "executable": sys.executable}
    prefix = server["filesystems"]["prefix"]
    assert (prefix["path"], prefix["nearest"], prefix["writable"]) == (f"{tmp_path}/not/yet", str(tmp_path), True)
    assert prefix["free_bytes"] == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    assert server["tools"]["gcc"]["error"] == ""
    assert not server["installed"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_the_probe_names_what_is_broken(shell: str, tmp_path: Path) -> None:
    programs = tmp_path / "my programs"  # of the login, with a blank
    programs.mkdir()
    for name, lines in {
        "python3": "exit 127",
        "python3.10": "echo 3.10.4",
        "python3-config": "echo 9.9.9",
        "gcc": "cat >/dev/null; echo 'stdlib.h: No such file or directory' >&2; exit 1",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{lines}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack/current").symlink_to(".")
    server = probe(shell, f"{tmp_path}/stack", "auto", tmp_path, f"{programs}:/usr/bin:/bin")
    assert server["python"] == {"version": "(not there)", "executable": "python3"}
    assert ("3.10.4", f"{programs}/python3.10") in server["pythons"]
    assert "9.9.9" not in dict(server["pythons"])
    assert server["tools"]["gcc"]["error"] == "stdlib.h: No such file or directory"
    assert server["installed"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_probe_finds_the_python_of_the_prefix(shell: str, tmp_path: Path) -> None:
    python = tmp_path / "stack/var/python3/3.9.2-0/bin/python3"
    server = probe(shell, "~/stack", "bootstrap", tmp_path)
    assert server["python"] == {"version": "(not there)", "executable": f"{tmp_path}/stack/var/python3"}
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    server = probe(shell, "~/stack", "bootstrap", tmp_path)
    version = ".".join(map(str, sys.version_info[:3]))
    assert server["python"] == {"version": version, "executable": str(python)}
    assert (version, str(python)) in server["pythons"]


# --- Findings without modules -----------------------------------------------------------------------------------------


def asked(text: str) -> list[dict[str, str]]:
    server = doctor_server(text)
    return doctor_asked(preflight_findings(server, REQUIREMENTS), server, "3.9")


def test_the_catalogue_has_what_is_asked_after() -> None:
    assert set(ASKED) <= {check.id for check in CATALOGUE}


def test_a_healthy_server_has_no_findings() -> None:
    assert asked(HEALTHY) == []
    assert asked(HEALTHY.replace("\n", "\r\n")) == []  # through a terminal


@pytest.mark.parametrize(
    ("change", "finding", "evidence"),
    [
        ("architecture=aarch64", "architecture", "aarch64"),
        ("glibc=2.28", "glibc", "glibc 2.28"),
        ("glibc=", "glibc", "another C library"),
        ("python=3.6.8", "python", "/usr/bin/python3 is Python 3.6.8"),
        ("python=", "python", "/usr/bin/python3 is Python (not there)"),
        ("writable", "prefix_not_writable", "alice may not create files in /home/alice"),
        ("free_bytes=1000000000", "disk", "1.0 GB at /home/alice"),
        ("compiler_error=there is no gcc on PATH", "compiler", "there is no gcc on PATH"),
        ("driver=375.26", "gpu_driver_old", "375.26"),
    ],
)
def test_each_fault_is_one_finding_with_its_evidence(change: str, finding: str, evidence: str) -> None:
    key = change.partition("=")[0]
    [found] = asked(re.sub(rf"(?m)^{key}=.*$", change, HEALTHY))
    assert found["id"] == finding
    assert evidence in found["what"]


def test_an_unknown_size_is_no_finding() -> None:
    assert asked(HEALTHY.replace("free_bytes=90000000000", "free_bytes=")) == []


def test_the_remedy_names_the_newest_python_that_suffices() -> None:
    others = "found=3.6.8 /usr/bin/python3\nfound=3.9.18 /opt/py/bin/python3.9\nfound=3.11.4 /home/a/bin/python3.11\n"
    [found] = asked(HEALTHY.replace("python=3.11.2", "python=3.6.8").replace("found=3.11.2 /usr/bin/python3\n", others))
    assert found["remedy"].endswith("ansible_python_interpreter: /home/a/bin/python3.11")
    [found] = asked(HEALTHY.replace("3.11.2", "3.6.8"))
    assert "such as /usr/bin/python3.11" in found["remedy"]  # the catalogue's own


def test_the_remedy_is_the_bootstrap_where_that_is_asked_for() -> None:
    server = doctor_server(HEALTHY.replace("python=3.11.2", "python="))
    [found] = doctor_asked(preflight_findings(server, REQUIREMENTS), server, "3.9", "site.yml --tags bootstrap")
    assert found["remedy"] == "bootstrap_python is set, and site.yml puts one there: site.yml --tags bootstrap"


# --- Findings about the stack -----------------------------------------------------------------------------------------

SITE = "ansible-playbook -i hosts.yml site.yml --limit gpu1"


def looked_up(**changes: Any) -> dict[str, Any]:
    """A look-up of a server on which all is well, but for `changes`."""
    roles = ("caffe2", "detectron")
    installs = {role: {"role": role, "state": "present", "why": "", "path": f"/p/opt/{role}/1"} for role in roles}
    generation = {
        "digest": "0123",
        "path": "/p/generations/1",
        "installs": {role: f"/p/opt/{role}/1" for role in roles},
    }
    ladder = {"digest": "0123", "driver": "", "time": 0, "rungs": [rung("import", "passed")]}
    current = {"path": "/p/generations/1", "state": "present", "why": ""}
    known = {"installs": installs, "current": current, "generation": generation, "ladder": ladder}
    return {"prefix": "/p", **known, "driver": "", **changes}


def rung(name: str, status: str) -> dict[str, Any]:
    remedy = "ansible-playbook site.yml --tags caffe2"
    check = {"name": "workspace", "status": status, "reason": "No module named caffe2", "remedy": remedy}
    return {"rung": name, "checks": [check]}


def with_state(role: str, state: str, why: str = "") -> dict[str, Any]:
    installs = looked_up()["installs"]
    installs[role].update(state=state, why=why)
    return {"installs": installs}


def ids(**changes: Any) -> list[tuple[str, str]]:
    return [(found["id"], found["severity"]) for found in doctor_installed(looked_up(**changes), SITE)]


def test_an_installed_stack_has_no_findings() -> None:
    assert ids() == []


def test_a_missing_install_is_named_with_the_command_that_makes_it() -> None:
    [found] = doctor_installed(looked_up(**with_state("caffe2", "absent")), SITE)
    assert (found["id"], found["severity"], found["remedy"]) == ("install_missing", "stop", SITE)
    assert "/p lacks caffe2," in found["what"]


def test_nothing_installed_is_one_finding() -> None:
    installs = {role: {**entry, "state": "absent"} for role, entry in looked_up()["installs"].items()}
    assert ids(installs=installs, generation={}, ladder={}) == [("install_missing", "stop")]


def test_a_damaged_install_is_named_with_what_is_wrong() -> None:
    [found] = doctor_installed(looked_up(**with_state("detectron", "damaged", "setup.py is missing")), SITE)
    assert (found["id"], found["severity"]) == ("install_damaged", "stop")
    assert found["what"] == "detectron in /p/opt/detectron/1: setup.py is missing."
    assert found["remedy"] == f"{SITE} --extra-vars stack_deep=true"


def test_what_is_damaged_is_found_in_a_dict_of_ansibles_as_well() -> None:
    class Lazy(dict[str, Any]):
        """As core 2.19 hands out the results of tasks."""

        def values(self) -> Any:
            yield from super().values()

    installs = Lazy(with_state("detectron", "damaged")["installs"])
    assert ids(installs=installs) == [("install_damaged", "stop")]


def test_installs_without_a_generation_cannot_be_used() -> None:
    assert ids(generation={}, ladder={}) == [("generation_none", "stop")]


def test_a_damaged_generation_is_named_with_what_is_wrong_and_what_mends_it() -> None:
    current = {"path": "/p/generations/1", "state": "damaged", "why": "activate.sh has other content"}
    [found] = doctor_installed(looked_up(current=current, generation={}), SITE)
    assert found["what"] == "/p/current leads to no whole generation: activate.sh has other content."
    assert found["remedy"] == f"{SITE} --extra-vars stack_deep=true"


def test_a_generation_of_other_installs_works_but_is_not_what_is_wanted() -> None:
    generation = looked_up()["generation"]
    generation["installs"]["detectron"] = "/p/opt/detectron/0"
    assert ids(generation=generation) == [("generation_old", "warn")]


@pytest.mark.parametrize("changes", [{"ladder": {}}, {"driver": "NVRM 535"}, {"ladder": {"digest": "9", "driver": ""}}])
def test_a_record_of_something_else_is_old(changes: dict[str, Any]) -> None:
    assert ids(**changes) == [("ladder_old", "warn")]


def test_a_failed_rung_is_named_with_its_cause() -> None:
    ladder = {"digest": "0123", "driver": "", "time": 90, "rungs": [rung("files", "passed"), rung("import", "failed")]}
    [found] = doctor_installed(looked_up(ladder=ladder), SITE)
    assert (found["id"], found["severity"]) == ("ladder_import", "stop")
    assert found["what"] == "workspace: No module named caffe2."
    assert "on 1970-01-01 00:01 UTC, on this generation" in found["cause"]
    assert found["remedy"] == f"{SITE} --tags caffe2; then: {SITE} --tags verify"


def test_what_stops_comes_first() -> None:
    findings = [{"severity": "info"}, {"severity": "stop"}, {"severity": "warn"}]
    assert [found["severity"] for found in doctor_ordered(findings)] == ["stop", "warn", "info"]


def test_a_refusal_is_a_finding_and_silence_is_none() -> None:
    assert doctor_refused("") == []
    [found] = doctor_refused("/p was not made by this project")
    assert (found["severity"], found["what"]) == ("stop", "/p was not made by this project")


def test_the_documentation_lists_the_findings() -> None:
    named = set(re.findall(r"^\| `([\w…]+)` \|", (ROOT / "docs/doctor.md").read_text(), re.MULTILINE))
    source = (ROOT / "plugins/filter/doctor.py").read_text()
    assert named == {name.replace("{rung}", "…") for name in re.findall(r'"id": f?"([\w{}]+)"', source)}


# --- The playbook -----------------------------------------------------------------------------------------------------


def doctor(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    """(exit status, output) of the playbook on this machine, for a login whose home is tmp_path/home."""
    (tmp_path / "home").mkdir()
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"stack_cuda90_wheel": {"hosts": {"here": {"ansible_connection": "local"}}}}))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *("--inventory", inventory, "playbooks/doctor.yml"),
            *("--extra-vars", f"ansible_python_interpreter={sys.executable}"),
            *arguments,
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            "ANSIBLE_HOME": str(tmp_path / "ansible"),
            "HOME": str(tmp_path / "home"),
            "LC_ALL": "C.UTF-8",
            "PATH": os.environ["PATH"],
        },
    )
    assert "changed=0" in done.stdout, done.stdout + done.stderr
    assert list((tmp_path / "home").iterdir()) == []
    return done.returncode, done.stdout


def test_an_empty_prefix_lacks_the_installs_and_nothing_is_written(tmp_path: Path) -> None:
    status, output = doctor(tmp_path, "--extra-vars", '{"preflight_accepted": ["disk", "inodes", "prefix_length"]}')
    assert status == 2
    assert re.findall(r"STOP +(\w+):", output) == ["install_missing"]
    assert "lacks nvidia_libs, anaconda2, caffe2, cocoapi" in output
    assert f"ansible-playbook -i {tmp_path}/hosts.yml site.yml --limit here" in re.sub(r"\s+", " ", output)
    assert "INFO  display:" in output
    assert "because of install_missing." in output


def test_a_server_without_python_is_told_so(tmp_path: Path) -> None:
    status, output = doctor(tmp_path, "--extra-vars", "ansible_python_interpreter=/nowhere/python3")
    assert status == 2
    assert "/nowhere/python3 is Python (not there)" in output
    assert re.search(r"ansible_python_interpreter:\s+/\S+/python3", output)
    assert re.search(r"because\s+of\s+(\w+, )*python\b", output)


def test_a_python_that_is_to_be_put_there_is_not_put_there_by_the_doctor(tmp_path: Path) -> None:
    status, output = doctor(tmp_path, "--extra-vars", "bootstrap_python=true")
    assert status == 2
    said = "".join(output.split())  # the table breaks long lines
    assert f"{tmp_path}/home/detectron/cuda90_wheel/var/python3isPython(notthere)" in said
    assert "site.yml--limithere--tagsbootstrap" in said


def test_the_doctor_uses_the_python_of_the_prefix(tmp_path: Path) -> None:
    """One that runs, but has no receipt: a run of site.yml would replace it, the doctor does not."""
    python = tmp_path / "stack/var/python3/3.9.2-0/bin/python3"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (tmp_path / "stack/.stack.json").write_text('{"stack": "cuda90_wheel"}')
    given = ("--extra-vars", "bootstrap_python=true", "--extra-vars", f"stack_prefix={tmp_path}/stack")
    status, output = doctor(
        tmp_path, *given, "--extra-vars", '{"preflight_accepted": ["disk", "inodes", "prefix_length"]}'
    )
    assert status == 2
    assert re.findall(r"STOP +(\w+):", output) == ["install_missing"]
    assert os.listdir(tmp_path / "stack/var") == ["python3"]


def test_a_prefix_of_somebody_else_is_refused_as_a_finding(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/thesis.tex").write_text("")
    status, output = doctor(tmp_path, "--extra-vars", f"stack_prefix={tmp_path}/theirs")
    assert status == 2
    assert re.search(r"because\s+of\s+(\w+, )*look_up\b", output)
    assert os.listdir(tmp_path / "theirs") == ["thesis.tex"]
