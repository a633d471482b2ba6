"""The catalogue of findings: each entry has a server that triggers it, and a healthy one does not."""

from __future__ import annotations

import copy
import string
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from preflight import CATALOGUE, SEVERITIES, preflight_findings, preflight_table

PREFIX = "/home/alice/detectron/cuda90_wheel"

REQUIREMENTS: dict[str, Any] = {
    "architecture": "x86_64",
    "glibc_min": "2.17",
    "python_min": "3.9",
    "driver_min": "384.81",
    "compute_capabilities": {"code": ["3.5", "5.0", "6.0", "6.1", "7.0"], "ptx": ["5.0"]},
    "needed_bytes": 3_000_000_000,
    "needed_files": 40_000,
    "interpreters": [f"{PREFIX}/opt/caffe2/1.0.1-0123456789ab/bin/python2.7"],
    "build_needed": True,
}


def disk(path: str) -> dict[str, Any]:
    return {
        "path": path,
        "nearest": "/home/alice",
        "writable": True,
        "source": "/dev/sda1",
        "type": "ext4",
        "network": False,
        "noexec": False,
        "free_bytes": 50_000_000_000,
        "free_files": 1_000_000,
        "quota_bytes": None,
        "quota_files": None,
    }


def gpu(capability: str, index: int = 0) -> dict[str, Any]:
    return {"index": index, "name": "Tesla", "memory_bytes": 16 << 30, "compute_capability": capability}


def tool(name: str) -> dict[str, str]:
    return {"path": f"/usr/bin/{name}", "version": "5.4.0", "error": ""}


HEALTHY: dict[str, Any] = {
    "hostname": "gpu3",
    "architecture": "x86_64",
    "kernel": "4.4.0-124-generic",
    "glibc": "2.23",
    "python": {"version": "3.11.2", "executable": "/usr/bin/python3"},
    "user": {"name": "alice", "uid": 1000, "groups": ["alice"]},
    "umask": 0o022,
    "display": "localhost:10.0",
    "locale": {"LANG": "en_US.UTF-8"},
    "filesystems": {"home": disk("/home/alice"), "prefix": disk(PREFIX), "tmp": disk("/tmp")},
    "tools": {name: tool(name) for name in ("gcc", "git", "make")},
    "gpu": {"driver": "396.26", "devices": [gpu("6.1")], "boards": ["0000:03:00.0"], "error": ""},
    "environment": [],
    "config_files": [],
    "user_site": {"path": "/home/alice/.local/lib/python2.7/site-packages", "shadowing": []},
    "libraries": [],
    "detectron_operators": [],
}


def server(changes: dict[str, Any]) -> dict[str, Any]:
    """The healthy server with some facts replaced, named by their dotted path."""
    changed = copy.deepcopy(HEALTHY)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = changed
        for parent in parents:
            place = place[parent]
        place[last] = value
    return changed


def ids(changes: dict[str, Any], **requirements: Any) -> list[str]:
    return [finding["id"] for finding in preflight_findings(server(changes), {**REQUIREMENTS, **requirements})]


def setting(name: str, value: str, where: str = "environment") -> list[dict[str, str]]:
    return [{"name": name, "value": value, "where": where}]


def library(name: str, major: int) -> list[dict[str, Any]]:
    path = f"/usr/local/cuda/lib64/{name}.so.{major}"
    return [{"name": f"{name}.so.{major}", "major": major, "path": path, "where": "ldconfig"}]


LONG_INTERPRETER = f"/{'x' * 125}"

# What makes a healthy server have exactly this finding, and what its text must then name.
TRIGGERS: list[tuple[str, dict[str, Any], dict[str, Any], list[str]]] = [
    ("architecture", {"architecture": "ppc64le"}, {}, ["ppc64le", "x86_64"]),
    ("glibc", {"glibc": "2.12"}, {}, ["2.12", "2.17"]),
    ("glibc", {"glibc": ""}, {}, ["another C library"]),
    ("python", {"python.version": "3.8.10"}, {}, ["3.8.10", "3.9", "ansible_python_interpreter"]),
    ("prefix_not_writable", {"filesystems.prefix.writable": False}, {}, [PREFIX, "alice", "stack_prefix"]),
    ("prefix_noexec", {"filesystems.prefix.noexec": True}, {}, [PREFIX, "/dev/sda1", "stack_prefix"]),
    ("prefix_name", {"filesystems.prefix.path": "/home/a b/stack"}, {}, ["/home/a b/stack", "' '", "stack_prefix"]),
    ("prefix_name", {"filesystems.prefix.path": "/data/a:b"}, {}, ["':'"]),
    ("prefix_name", {"filesystems.prefix.path": "/home/zoë/stack"}, {}, ["'ë'"]),
    ("prefix_length", {}, {"interpreters": [LONG_INTERPRETER]}, ["128", "127", "shorter, by 1 or more"]),
    ("disk", {"filesystems.prefix.free_bytes": 2_900_000_000}, {}, ["2.9 GB", "3.0 GB", "The filesystem leaves"]),
    ("disk", {"filesystems.prefix.quota_bytes": 512_000_000}, {}, ["512.0 MB", "quota leaves"]),
    ("inodes", {"filesystems.prefix.free_files": 100}, {}, ["100 files", "40000"]),
    ("inodes", {"filesystems.prefix.quota_files": 7}, {}, ["7 files", "quota"]),
    ("compiler", {"tools.gcc.error": "there is no gcc on PATH"}, {}, ["no gcc on PATH", "libc6-dev"]),
    (
        "gpu_driver_broken",
        {"gpu.devices": [], "gpu.error": "Failed to initialize NVML: Driver/library version mismatch"},
        {},
        ["396.26", "version mismatch", "reboot"],
    ),
    ("gpu_without_driver", {"gpu.driver": "", "gpu.devices": []}, {}, ["0000:03:00.0"]),
    ("gpu_none", {"gpu": {"driver": "", "devices": [], "boards": [], "error": "no nvidia-smi"}}, {}, ["GPU"]),
    ("gpu_driver_old", {"gpu.driver": "375.26"}, {}, ["375.26", "384.81"]),
    ("gpu_too_new", {"gpu.devices": [gpu("9.0")]}, {}, ["9.0", "one-time compilation", "another server"]),
    ("gpu_too_new", {"gpu.devices": [gpu("9.0")]}, {}, ["6.1, 7.0", "PTX (of 5.0)", "CUDNN_STATUS_EXECUTION_FAILED"]),
    ("gpu_too_new", {"gpu.devices": [gpu("8.0"), gpu("7.5", 1)]}, {}, ["GPU 0", "CUDA_VISIBLE_DEVICES=1"]),
    ("gpu_too_old", {"gpu.devices": [gpu("3.0")]}, {}, ["3.0", "no kernel image"]),
    ("gpu_unknown", {"gpu.devices": [gpu("")]}, {}, ["Tesla, unknown"]),
    ("gpu_visibility", {"environment": setting("CUDA_VISIBLE_DEVICES", "GPU-8932f937")}, {}, ["GPU-8932f937"]),
    ("gpu_visibility", {"environment": setting("CUDA_VISIBLE_DEVICES", "")}, {}, ["''"]),
    (
        "operators_elsewhere",
        {"detectron_operators": ["/usr/local/lib/libcaffe2_detectron_ops_gpu.so"]},
        {},
        ["/usr/local/lib/libcaffe2_detectron_ops_gpu.so"],
    ),
    ("locale", {"locale": {"LC_CTYPE": "UTF-8"}}, {}, ["LC_CTYPE=UTF-8", "SendEnv"]),
    ("umask", {"umask": 0o000}, {}, ["0000", "022"]),
    ("root", {"user.uid": 0}, {}, ["uid 0"]),
    (
        "python_environment",
        {"environment": setting("PYTHONPATH", "/x", "~/.bashrc:7")},
        {},
        ["PYTHONPATH=/x", "bashrc:7"],
    ),
    ("python_environment", {"environment": setting("PYTHONHOME", "/x")}, {}, ["PYTHONHOME=/x in the environment"]),
    ("loader_environment", {"environment": setting("LD_LIBRARY_PATH", "/usr/local/cuda/lib64")}, {}, ["cuda/lib64"]),
    ("loader_environment", {"environment": setting("LD_PRELOAD", "/x.so")}, {}, ["LD_PRELOAD=/x.so"]),
    ("installer_environment", {"environment": setting("PIP_USER", "1")}, {}, ["PIP_USER=1"]),
    ("installer_environment", {"environment": setting("CONDA_ENVS_PATH", "/x")}, {}, ["CONDA_ENVS_PATH=/x"]),
    ("compiler_environment", {"environment": setting("CFLAGS", "-O0")}, {}, ["CFLAGS=-O0"]),
    ("plot_environment", {"environment": setting("MPLBACKEND", "TkAgg")}, {}, ["MPLBACKEND=TkAgg"]),
    ("display", {"display": ""}, {}, ["MPLBACKEND=Agg"]),
    ("user_site", {"user_site.shadowing": ["numpy", "yaml"]}, {}, ["numpy, yaml", "PYTHONNOUSERSITE=1"]),
    ("config_files", {"config_files": ["/home/alice/.condarc"]}, {}, ["/home/alice/.condarc"]),
    ("foreign_libraries", {"libraries": library("libcudnn", 5)}, {}, ["libcudnn.so.5"]),
    ("foreign_libraries", {"libraries": library("libnccl", 1)}, {}, ["libnccl.so.1"]),
    (
        "network_prefix",
        {"filesystems.prefix.network": True, "filesystems.prefix.type": "nfs4"},
        {},
        [PREFIX, "nfs4"],
    ),
    ("network_home", {"filesystems.home.network": True, "filesystems.home.type": "lustre"}, {}, ["lustre"]),
    ("tools", {"tools.git.error": "there is no git on PATH"}, {}, ["git"]),
    ("tmp", {"filesystems.tmp.free_bytes": 1_000_000}, {}, ["1.0 MB"]),
]

# What lies close to a finding and is none.
NO_FINDING: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("the oldest glibc that works", {"glibc": "2.17"}, {}),
    ("the oldest Python that works", {"python.version": "3.9.0"}, {}),
    ("the first driver that works", {"gpu.driver": "384.81"}, {}),
    ("exactly enough space", {"filesystems.prefix.free_bytes": 3_000_000_000}, {}),
    ("a filesystem that does not say what is free", {"filesystems.prefix.free_bytes": None}, {}),
    ("a filesystem that counts no files", {"filesystems.prefix.free_files": None}, {}),
    ("a full disk when all is installed", {"filesystems.prefix.free_bytes": 0}, {"needed_bytes": 0}),
    ("no compiler when nothing is to be built", {"tools.gcc.error": "there is none"}, {"build_needed": False}),
    ("the longest first line that works", {}, {"interpreters": [LONG_INTERPRETER[:-1]]}),
    ("the majors that the stack uses", {"libraries": library("libcudnn", 7) + library("libnccl", 2)}, {}),
    ("devices given as integers", {"environment": setting("CUDA_VISIBLE_DEVICES", "0,3")}, {}),
    ("a prefix with other safe characters", {"filesystems.prefix.path": "/data/a.b_c-d+e@f=g,h~i"}, {}),
]


def test_a_healthy_server_has_no_findings() -> None:
    assert preflight_findings(HEALTHY, REQUIREMENTS) == []


@pytest.mark.parametrize(("identity", "changes", "requirements", "names"), TRIGGERS)
def test_each_finding_is_found_alone_and_names_its_evidence(
    identity: str, changes: dict[str, Any], requirements: dict[str, Any], names: list[str]
) -> None:
    findings = preflight_findings(server(changes), {**REQUIREMENTS, **requirements})
    assert [finding["id"] for finding in findings] == [identity]
    text = " ".join(findings[0][part] for part in ("what", "cause", "remedy"))
    assert [name for name in names if name not in text] == []


@pytest.mark.parametrize(("changes", "requirements"), [case[1:] for case in NO_FINDING], ids=[c[0] for c in NO_FINDING])
def test_what_is_close_to_a_finding_is_none(changes: dict[str, Any], requirements: dict[str, Any]) -> None:
    assert ids(changes, **requirements) == []


def test_every_entry_of_the_catalogue_is_tested() -> None:
    assert {trigger[0] for trigger in TRIGGERS} == {check.id for check in CATALOGUE}


def test_the_catalogue_is_well_formed() -> None:
    assert len({check.id for check in CATALOGUE}) == len(CATALOGUE)
    for check in CATALOGUE:
        assert check.severity in SEVERITIES
        assert not check.title.endswith(".")
        for text in (check.what, check.cause, check.remedy):
            assert text.endswith((".", ".)")), check.id


@pytest.mark.parametrize(("identity", "changes", "requirements", "_names"), TRIGGERS)
def test_no_placeholder_is_left_in_a_text(
    identity: str, changes: dict[str, Any], requirements: dict[str, Any], _names: list[str]
) -> None:
    [finding] = preflight_findings(server(changes), {**REQUIREMENTS, **requirements})
    for part in ("what", "cause", "remedy"):
        assert [field for _, field, _, _ in string.Formatter().parse(finding[part]) if field] == []


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ("2.0", ["gpu_too_old"]),  # Fermi
        ("3.0", ["gpu_too_old"]),  # machine code for 3.5 does not run on 3.0
        ("3.5", []),
        ("3.7", []),  # K80 runs machine code for 3.5
        ("5.2", []),  # Titan X
        ("6.0", []),
        ("6.1", []),
        ("6.2", []),
        ("7.0", []),  # V100
        ("7.5", []),  # Turing runs machine code for 7.0
        ("8.6", ["gpu_too_new"]),
        ("9.0", ["gpu_too_new"]),  # H200
        ("10.0", ["gpu_too_new"]),
        ("12.0", ["gpu_too_new"]),
    ],
)
@pytest.mark.parametrize(
    "written",
    [
        {"code": ["3.5", "5.0", "6.0", "6.1", "7.0"], "ptx": ["5.0"]},
        {"code": [3.5, 5.0, 6.0, 6.1, 7.0], "ptx": [5.0]},
        {"code": [35, 50, 60, 61, 70], "ptx": [50]},
        {"code": ["sm_35", "sm_50", "sm_60", "sm_61", "sm_70"], "ptx": ["sm_50"]},
    ],
    ids=["text", "float", "integer", "sm"],
)
def test_compute_capabilities(capability: str, expected: list[str], written: dict[str, Any]) -> None:
    assert ids({"gpu.devices": [gpu(capability)]}, compute_capabilities=written) == expected


@pytest.mark.parametrize(
    ("driver", "minimum", "old"),
    [
        ("375.26", "375.26", False),
        ("367.48", "375.26", True),
        ("384.81", "384.81", False),
        ("384.130", "384.81", False),  # numbers, not decimals
        ("384.69", "384.81", True),
        ("418.39", "384.81", False),
        ("580.65.06", "384.81", False),
    ],
)
def test_drivers(driver: str, minimum: str, old: bool) -> None:
    assert ids({"gpu.driver": driver}, driver_min=minimum) == (["gpu_driver_old"] if old else [])


def test_what_stops_comes_first_and_all_of_it_is_reported() -> None:
    found = ids({"display": "", "gpu.driver": "1.0", "glibc": "2.5", "filesystems.prefix.noexec": True})
    assert found == ["glibc", "prefix_noexec", "gpu_driver_old", "display"]


def test_only_what_breaks_the_install_stops_it() -> None:
    assert {check.id for check in CATALOGUE if check.severity == "stop"} == {
        "architecture", "glibc", "python", "prefix_not_writable", "prefix_noexec", "prefix_name", "prefix_length",
        "disk", "inodes", "compiler",
    }  # fmt: skip


def test_an_accepted_finding_is_left_out() -> None:
    broken = server({"glibc": "2.5", "display": ""})
    assert [f["id"] for f in preflight_findings(broken, REQUIREMENTS, ["glibc"])] == ["display"]


def test_accepting_a_finding_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(AnsibleFilterError, match="no finding glibcc to accept"):
        preflight_findings(HEALTHY, REQUIREMENTS, ["glibcc"])


@pytest.mark.parametrize("key", sorted(REQUIREMENTS))
def test_a_lock_that_lacks_a_requirement_is_an_error_that_names_it(key: str) -> None:
    with pytest.raises(AnsibleFilterError, match=f"lack '{key}'.*stack_lock.requirements"):
        preflight_findings(HEALTHY, {name: value for name, value in REQUIREMENTS.items() if name != key})


def test_a_value_that_is_no_compute_capability_is_an_error() -> None:
    with pytest.raises(AnsibleFilterError, match="'volta' is not a compute capability"):
        ids({}, compute_capabilities={"code": ["volta"], "ptx": []})


def test_the_table_is_aligned_and_fits_its_width() -> None:
    everything = {path: value for trigger in TRIGGERS for path, value in trigger[1].items() if path != "gpu"}
    lines = preflight_table(preflight_findings(server(everything), REQUIREMENTS), width=80).splitlines()
    assert max(map(len, lines)) <= 80
    starts = {line[:14] for line in lines if line.startswith(" ")}
    assert starts == {"      Found   ", "      Cause   ", "      Remedy  ", " " * 14}
    assert all(line.split()[0] in {"STOP", "WARN", "INFO"} for line in lines if not line.startswith(" "))


def test_the_table_of_nothing_is_empty() -> None:
    assert preflight_table([]) == ""
