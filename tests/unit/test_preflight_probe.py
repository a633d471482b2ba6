"""The module that probes a server: what it reads from texts, programs and odd machines; and one real run."""

from __future__ import annotations

import inspect
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import preflight_probe
import pytest
import yaml
from preflight import preflight_findings
from test_preflight_findings import HEALTHY, REQUIREMENTS

Program = Callable[..., Path]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Puts shell scripts, given by name and body, on a PATH that has the system's own programs after them."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(name: str, body: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    monkeypatch.setenv("HOME", str(path))
    return path


def leaves(value: Any, path: str = "") -> Iterator[str]:
    """Dotted names of all keys of nested dicts."""
    for key, inner in value.items():
        yield f"{path}{key}"
        if isinstance(inner, dict):
            yield from leaves(inner, f"{path}{key}.")


# --- Mounts, space and quota ---


MOUNTS = """\
rootfs / rootfs rw 0 0
/dev/sda1 / ext4 rw,relatime 0 0
filer:/export/home /home nfs4 rw,vers=4.2 0 0
/dev/sdb1 /data\\040set ext4 rw,noexec 0 0
tmpfs /home/alice/ram tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("/", "/dev/sda1"),  # the later of two on one point
        ("/usr/lib", "/dev/sda1"),
        ("/home/alice", "filer:/export/home"),
        ("/homes", "/dev/sda1"),  # not below /home
        ("/home/alice/ram", "tmpfs"),
        ("/data set/x", "/dev/sdb1"),
    ],
)
def test_a_path_is_on_the_deepest_mount_that_holds_it(path: str, source: str) -> None:
    assert preflight_probe.mount_of(path, preflight_probe.parse_mounts(MOUNTS)).source == source


def test_a_machine_without_a_mount_table_has_an_unknown_filesystem() -> None:
    found = preflight_probe.filesystem("/", [], {})
    assert (found["type"], found["network"], found["noexec"]) == ("", False, False)


def test_a_filesystem_reports_network_noexec_and_quota() -> None:
    mounts = preflight_probe.parse_mounts("filer:/x / nfs4 rw,noexec 0 0\n")
    found = preflight_probe.filesystem("/", mounts, {"filer:/x": (1024, 5)})
    assert found["network"] and found["noexec"]
    assert (found["quota_bytes"], found["quota_files"]) == (1024, 5)


def test_a_prefix_that_does_not_exist_is_judged_by_its_nearest_parent(tmp_path: Path) -> None:
    found = preflight_probe.filesystem(str(tmp_path / "a/b/c"), [], {})
    assert (found["nearest"], found["writable"]) == (str(tmp_path), True)
    assert found["free_bytes"] > 0


def test_a_prefix_below_a_file_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not preflight_probe.filesystem(str(tmp_path / "file/stack"), [], {})["writable"]


QUOTA = """\
Disk quotas for user alice (uid 1000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
      /dev/sda1  900000  950000 1000000       0     400       0     500       0
filer:/export/home 2100*  2000       0  1700000000  10*     5      10  1700000000
      /dev/sdc1     100       0       0       0       1       0       0       0
"""


def test_quota_leaves_what_the_limit_allows() -> None:
    assert preflight_probe.parse_quota(QUOTA) == {
        "/dev/sda1": (100_000 * 1024, 100),
        "filer:/export/home": (0, 0),  # over its soft limit, which is the only one
        "/dev/sdc1": (None, None),
    }


@pytest.mark.parametrize("text", ["", "Disk quotas for user alice (uid 1000): none\n", "quota: error\n"])
def test_no_quota(text: str) -> None:
    assert preflight_probe.parse_quota(text) == {}


# --- Programs ---


def test_a_program_that_does_not_exist_is_no_failure() -> None:
    assert preflight_probe.run(["no-such-program-at-all"], 1).rc is None


def test_a_program_that_hangs_is_ended_after_its_timeout_with_all_that_it_started(
    program: Program, tmp_path: Path
) -> None:
    program("hangs", f"sleep 600 & echo $$ $! >{tmp_path}/pids\nsleep 600")
    outcome = preflight_probe.run(["hangs"], 2)
    assert (outcome.rc, outcome.said) == (None, "hangs gave no answer within 2 s")
    pids = (tmp_path / "pids").read_text().split()
    deadline = time.monotonic() + 60
    while any(works(pid) for pid in pids):
        assert time.monotonic() < deadline, "they sleep on"
        time.sleep(0.02)


def works(pid: str) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("first_line", "version"),
    [
        ("gcc (Ubuntu 5.4.0-6ubuntu1~16.04.12) 5.4.0 20160609", "5.4.0"),
        ("gcc (GCC) 4.8.5 20150623 (Red Hat 4.8.5-44)", "4.8.5"),
        ("gcc (Debian 12.2.0-14+deb12u1) 12.2.0", "12.2.0"),
        ("git version 2.39.5", "2.39.5"),
        ("GNU Make 4.3", "4.3"),
        ("", ""),
    ],
)
def test_versions_of_tools(program: Program, first_line: str, version: str) -> None:
    program("tool", f"echo '{first_line}'")
    assert preflight_probe.tool("tool")["version"] == version


def test_a_compiler_without_headers_does_not_work(program: Program) -> None:
    program("gcc", 'test "$1" = --version && exec echo "gcc 5.4.0"; echo "error: stdlib.h: No such file" >&2; exit 1')
    found = preflight_probe.compiler()
    assert (found["version"], found["error"]) == ("5.4.0", "error: stdlib.h: No such file")


def test_a_missing_compiler_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert preflight_probe.compiler()["error"] == "there is no gcc on PATH"


# --- GPUs ---

SMI = r"""
case "$*" in
  *compute_cap*) {with_capability} ;;
  *) {without} ;;
esac
"""


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which a driver is loaded and nothing else of NVIDIA is there, whatever this machine has."""
    monkeypatch.setattr(preflight_probe, "loaded_driver", lambda: "396.26")
    monkeypatch.setattr(preflight_probe, "nvidia_boards", lambda: ["0000:03:00.0"])
    monkeypatch.setattr(preflight_probe, "CUDA_PROGRAM", "raise OSError('libcuda.so.1 is missing')")


@pytest.mark.usefixtures("driver")
def test_gpus_from_nvidia_smi(program: Program) -> None:
    program("nvidia-smi", "echo 'Warning: persistence mode, is off'; echo '0, NVIDIA H200, 143771, 580.65.06, 9.0'")
    assert preflight_probe.probe_gpu() == {
        "driver": "396.26",
        "devices": [
            {"index": 0, "name": "NVIDIA H200", "memory_bytes": 143771 << 20, "compute_capability": "9.0"},
        ],
        "boards": ["0000:03:00.0"],
        "error": "",
    }


OLD_SMI = SMI.format(
    with_capability="echo 'Field \"compute_cap\" is not a valid field to query.'; exit 2",
    without="echo '0, Tesla P100, 16280, 396.26'; echo '1, Tesla K80, [N/A], 396.26'",
)
TWO_DEVICES = json.dumps(
    [
        {"index": 0, "name": "Tesla P100", "memory_bytes": 1, "compute_capability": "6.0"},
        {"index": 1, "name": "Tesla K80", "memory_bytes": 2, "compute_capability": "3.7"},
    ]
)


@pytest.mark.usefixtures("driver")
def test_an_old_nvidia_smi_is_completed_by_cuda(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    program("nvidia-smi", OLD_SMI)
    monkeypatch.setattr(preflight_probe, "CUDA_PROGRAM", f"print({TWO_DEVICES!r})")
    devices = preflight_probe.probe_gpu()["devices"]
    assert [(d["name"], d["memory_bytes"], d["compute_capability"]) for d in devices] == [
        ("Tesla P100", 16280 << 20, "6.0"),
        ("Tesla K80", None, "3.7"),
    ]


@pytest.mark.usefixtures("driver")
def test_an_old_nvidia_smi_without_cuda_leaves_the_capability_open(program: Program) -> None:
    program("nvidia-smi", OLD_SMI)
    assert [device["compute_capability"] for device in preflight_probe.probe_gpu()["devices"]] == ["", ""]


@pytest.mark.usefixtures("driver")
def test_a_driver_that_cannot_answer_is_quoted(program: Program) -> None:
    program("nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    found = preflight_probe.probe_gpu()
    assert found["devices"] == []
    assert found["error"] == "Failed to initialize NVML: Driver/library version mismatch"


FAKE_LIBCUDA = r"""
#include <string.h>
#include <stdlib.h>
int cuInit(unsigned flags) { return getenv("CUDA_VISIBLE_DEVICES") ? 100 : 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, device ? "B" : "A", length); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 17179869184ul + device; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 7 : attribute == 76 ? 5 * device : -1;
    return 0;
}
"""


def test_cuda_is_asked_for_all_devices_whatever_is_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "libcuda.so.1"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)], input=FAKE_LIBCUDA, text=True, check=True
    )
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert preflight_probe.ask_cuda() == (
        [
            {"index": 0, "name": "A", "memory_bytes": 1 << 34, "compute_capability": "7.0"},
            {"index": 1, "name": "B", "memory_bytes": (1 << 34) + 1, "compute_capability": "7.5"},
        ],
        "",
    )


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  384.81  Sat Sep  2 02:43:11 PDT 2017\n", "384.81"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n", "580.65.06"),
        ("", ""),
    ],
)
def test_version_of_the_driver(line: str, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"/proc/driver/nvidia/version": line}
    monkeypatch.setattr(preflight_probe, "read", lambda path: texts.get(path, ""))
    assert preflight_probe.loaded_driver() == version


# --- The login's environment and files ---


def test_the_environment_is_searched_for_what_reaches_into_an_install(home: Path) -> None:
    environ = {
        "PATH": "/usr/bin",
        "PIP_USER": "1",
        "PIP_INDEX_URL": "https://alice:secret@host/simple",
        "CONDA_CHANNEL_ALIAS": "https://host/t/tk-12-secret/main",
        "LD_LIBRARY_PATH": "/opt/stack/current/usr/local/lib64:/opt/stack/x",
        "PYTHONPATH": "/opt/stack-other:/opt/stack/x",
    }
    found = preflight_probe.probe_environment(environ, "/opt/stack")
    mine = [(entry["name"], entry["value"]) for entry in found if entry["where"] == "environment"]
    assert mine == [
        ("CONDA_CHANNEL_ALIAS", "https://host/t/***/main"),
        ("PIP_INDEX_URL", "https://***@host/simple"),
        ("PIP_USER", "1"),
        ("PYTHONPATH", "/opt/stack-other:/opt/stack/x"),  # only partly the stack's own
    ]


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("export PYTHONPATH=/x:$PYTHONPATH", "PYTHONPATH", "/x:$PYTHONPATH"),
        ("  LD_LIBRARY_PATH='/usr/local/cuda/lib64'", "LD_LIBRARY_PATH", "/usr/local/cuda/lib64"),
        ("setenv CFLAGS -O0", "CFLAGS", "-O0"),
        ("set -gx MPLBACKEND TkAgg", "MPLBACKEND", "TkAgg"),
        ("export CUDA_VISIBLE_DEVICES=", "CUDA_VISIBLE_DEVICES", ""),
    ],
)
def test_start_up_files_are_read_not_run(home: Path, line: str, name: str, value: str) -> None:
    (home / ".bashrc").write_text(f"# set up\ntouch {home}/was-run\n{line}\n")
    found = preflight_probe.probe_environment({}, "/opt/stack")
    assert {"name": name, "value": value, "where": f"{home}/.bashrc:3"} in found
    assert not (home / "was-run").exists()


@pytest.mark.parametrize(
    "line", ["# export PYTHONPATH=/x", "echo PYTHONPATH=/x", "MYPYTHONPATH=/x", "PYTHONPATHS=/x", "ACC=1", "unset CC"]
)
def test_lines_that_set_nothing_watched(line: str) -> None:
    assert list(preflight_probe.assignments(line)) == []


def test_a_user_site_names_only_what_shadows_the_stack(home: Path) -> None:
    site = home / ".local/lib/python2.7/site-packages"
    for name in ("numpy", "google", "flask", "numpy-1.14.3.dist-info"):
        (site / name).mkdir(parents=True)
    (site / "six.py").write_text("")
    assert preflight_probe.probe_user_site() == {"path": str(site), "shadowing": ["google", "numpy", "six"]}


def test_libraries_are_found_on_the_library_path_outside_the_prefix(tmp_path: Path, program: Program) -> None:
    program("ldconfig", "echo '2 libs found'; printf '\\tlibcudnn.so.5 (libc6,x86-64) => /usr/lib/libcudnn.so.5\\n'")
    for path in ("cuda/libnccl.so.1", "cuda/libcudnn.so.7.1.2", "cuda/libnccl.so", "stack/lib64/libcudnn.so.7"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    environ = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": f"{tmp_path}/cuda::{tmp_path}/stack/lib64:/nowhere"}
    found = preflight_probe.probe_libraries(environ, f"{tmp_path}/stack")
    assert [(entry["name"], entry["major"], entry["where"]) for entry in found] == [
        ("libcudnn.so.5", 5, "ldconfig"),
        ("libnccl.so.1", 1, "LD_LIBRARY_PATH"),
    ]


# --- Whole runs ---


def run_module(home: Path, *options: str, **arguments: Any) -> dict[str, Any]:
    """Runs the module as a process of its own, with its arguments on standard input, as Ansible does."""
    done = subprocess.run(
        [sys.executable, *options, inspect.getfile(preflight_probe)],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HOME": str(home), "LC_ALL": "nonsense"},
    )
    assert done.stderr == ""
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_this_machine_is_probed_without_a_trace(home: Path) -> None:
    before = {path: path.stat() for path in home.rglob("*")}
    result = run_module(home, prefix="~/stack", _ansible_check_mode=True)
    assert {path: path.stat() for path in home.rglob("*")} == before
    assert result["changed"] is False

    server = result["server"]
    assert set(leaves(server)) - {"locale.LANG", "locale.LC_CTYPE", "locale.LC_ALL"} == set(leaves(HEALTHY)) - {
        "locale.LANG"
    }
    assert server["filesystems"]["prefix"]["path"] == f"{home}/stack"
    assert server["architecture"] == os.uname().machine
    assert server["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert server["locale"]["LC_ALL"] == "nonsense"  # the login's, before Ansible corrects it
    assert isinstance(preflight_findings(server, REQUIREMENTS), list)


def test_a_bare_machine_is_probed_all_the_same(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(preflight_probe, "read", lambda path, limit=0: "")
    monkeypatch.setattr("glob.glob", lambda pattern: [])
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    monkeypatch.setattr("grp.getgrgid", lambda gid: {}[gid])
    monkeypatch.setattr("os.confstr", lambda name: None)
    home.rmdir()
    server = preflight_probe.probe("/", {})
    assert server["glibc"] == ""
    assert server["user"]["name"] == str(os.geteuid())
    assert server["gpu"] == {
        "driver": "", "devices": [], "boards": [], "error": "nvidia-smi: No such file or directory",
    }  # fmt: skip
    found = {finding["id"] for finding in preflight_findings(server, REQUIREMENTS)}
    assert {"glibc", "compiler", "gpu_none", "display", "tools"} <= found


def test_a_fifo_among_the_start_up_files_does_not_hang(home: Path) -> None:
    os.mkfifo(home / ".bashrc")
    assert stat.S_ISFIFO((home / ".bashrc").stat().st_mode)
    assert preflight_probe.read(str(home / ".bashrc")) == ""


def test_the_documentation_is_that_of_the_arguments_and_the_results() -> None:
    documented = yaml.safe_load(preflight_probe.DOCUMENTATION)["options"]
    assert {name: (entry["type"], entry["required"]) for name, entry in documented.items()} == {"prefix": ("str", True)}
    assert '"prefix": {"type": "str", "required": True}' in inspect.getsource(preflight_probe.main)
    returned = yaml.safe_load(preflight_probe.RETURN)["server"]["contains"]
    kinds = {"str": str, "int": int, "dict": dict, "list": list}
    for name, value in HEALTHY.items():
        assert isinstance(value, kinds[returned[name]["type"]]), name
    assert returned.keys() == HEALTHY.keys()
    assert yaml.safe_load(preflight_probe.EXAMPLES)
