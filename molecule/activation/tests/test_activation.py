"""activation: one generation, that every shell can take on whatever was set before."""

from __future__ import annotations

import json
import shlex

import pytest
from testinfra.host import Host

CPU_RUNGS = ("files", "linkage", "import", "numerics")

SHELLS = {
    "bash": "bash -c '. {0}/activate.sh && env -0'",
    "bash -eu": "bash -euc '. {0}/activate.sh && env -0'",
    "dash -eu": "dash -euc '. {0}/activate.sh && env -0'",
    "zsh -eu": "zsh -f -euc '. {0}/activate.sh && env -0'",
    "zsh twice": "zsh -f -c '. {0}/activate.sh && . {0}/activate.sh && env -0'",
    "csh": "csh -f -c 'source {0}/activate.csh && env -0'",
    "csh twice": "csh -f -c 'source {0}/activate.csh && source {0}/activate.csh && env -0'",
}

# An empty element would mean the current folder.
HOSTILE = {"LD_LIBRARY_PATH": ":/a::/b:", "PYTHONPATH": ":/c:", "PYTHONHOME": "/nowhere", "MPLBACKEND": "TkAgg"}

# What a modulefile may call, each saying what it was called for.
MODULE_COMMANDS = """
proc module-whatis args {}
foreach name {setenv unsetenv prepend-path} { proc $name args "puts \\"$name \\[join \\$args]\\"" }
"""


@pytest.fixture
def generation(host: Host, prefix: str) -> str:
    """The current generation's folder."""
    link = host.check_output(f"readlink {prefix}/current")
    assert link.startswith("generations/"), "relative: the prefix may be mounted elsewhere"
    return f"{prefix}/{link}"


@pytest.fixture
def installs(host: Host, generation: str) -> dict[str, str]:
    """The folder of each role's install, as the generation links to it."""
    roles = ("nvidia_libs", "anaconda2", "caffe2", "cocoapi", "detectron")
    folders = host.check_output("readlink " + " ".join(f"{generation}/{role}" for role in roles)).split()
    return dict(zip(roles, folders, strict=True))


def expected(generation: str, installs: dict[str, str], inherited: list[str]) -> dict[str, list[str]]:
    return {
        "LD_LIBRARY_PATH": [f"{generation}/usr/local/lib64", *inherited],
        "PYTHONPATH": [f"{installs['cocoapi']}/PythonAPI", installs["detectron"]],
        "PATH": [
            f"{generation}/bin",
            f"{installs['caffe2']}/bin",
            f"{installs['anaconda2']}/bin",
            "/usr/bin",
            "/bin",
        ],
    }


@pytest.mark.parametrize("inherited", [{}, HOSTILE], ids=["nothing set", "hostile"])
@pytest.mark.parametrize("shell", SHELLS)
def test_shell_takes_on_the_generation(
    host: Host, prefix: str, generation: str, installs: dict[str, str], shell: str, inherited: dict[str, str]
) -> None:
    settings = {"HOME": "/tmp", "PATH": "/usr/bin:/bin", **inherited}
    clean = shlex.join(["env", "-i", *(f"{name}={value}" for name, value in settings.items())])
    done = host.run(f"{clean} {SHELLS[shell].format(prefix + '/current')}")
    assert done.rc == 0, f"{done.stderr} (is {shell.split()[0]} installed?)"
    found = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
    for name, folders in expected(generation, installs, ["/a", "/b"] if inherited else []).items():
        assert found[name].split(":") == folders
    assert found["DETECTRON_GENERATION"] == generation, "not `current`, which moves on under a running job"
    assert found["MPLBACKEND"] == "Agg"
    assert "PYTHONHOME" not in found


def test_modulefile_sets_what_activation_sets(host: Host, generation: str, installs: dict[str, str]) -> None:
    program = f"{MODULE_COMMANDS}source {generation}/modulefile"
    said = host.check_output(f"printf %s {shlex.quote(program)} | tclsh").splitlines()
    assert f"setenv DETECTRON_GENERATION {generation}" in said
    assert "setenv MPLBACKEND Agg" in said
    assert "unsetenv PYTHONHOME" in said
    for name, folders in expected(generation, installs, []).items():
        prepended = [line.split()[2] for line in said if line.startswith(f"prepend-path {name} ")]
        ours = [folder for folder in folders if folder not in ("/usr/bin", "/bin")]
        assert prepended[::-1] == ours or f"setenv {name} {':'.join(ours)}" in said


def test_stack_works_in_a_login_shell_with_hostile_settings(host: Host, prefix: str) -> None:
    ask = "import numpy, caffe2.python.core, pycocotools.mask, detectron; print(numpy.__version__)"
    command = f'. {prefix}/current/activate.sh && cd / && python -c "{ask}"'
    assert host.check_output(f"bash --login -c {shlex.quote(command)}").splitlines()[-1] == "1.14.3"


def test_ladder_passes_all_that_needs_no_gpu(host: Host, prefix: str) -> None:
    command = f". {prefix}/current/activate.sh && check-ladder --json -"
    ladder = json.loads(host.run(f"bash --login -c {shlex.quote(command)}").stdout)
    rungs = {rung["rung"]: rung for rung in ladder["rungs"]}
    assert {name: rungs[name]["status"] for name in CPU_RUNGS} == dict.fromkeys(CPU_RUNGS, "passed")
    unexplained = [name for name, rung in rungs.items() if rung["status"] == "not_applicable" and not rung["reason"]]
    assert unexplained == []


def test_each_server_has_its_own_record_of_the_ladder(host: Host, prefix: str, generation: str) -> None:
    record = json.loads(host.file(f"{prefix}/checks/{host.check_output('hostname')}/ladder.json").content_string)
    assert record["digest"] == json.loads(host.file(f"{generation}/receipt.json").content_string)["digest"]


def test_generations_are_read_only_and_each_is_made_once(host: Host, prefix: str, generation: str) -> None:
    generations = f"{prefix}/generations"
    assert host.check_output(f"find {generations}/* ! -type l -perm /222") == ""
    assert generation == f"{generations}/2", "one by converge, one by the upgrade"
    assert sorted(host.file(generations).listdir()) == ["1", "2"]


def test_usr_local_is_that_of_the_stack(host: Host, generation: str, installs: dict[str, str]) -> None:
    assert host.check_output(f"cd {generation}/usr/local/lib64 && pwd -P") == f"{installs['nvidia_libs']}/lib64"
    assert host.file(f"{generation}/usr/local/include/cudnn.h").exists
