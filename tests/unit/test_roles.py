"""What holds for every role, playbook and lock: one place per knob, no privileges, data that pins its bytes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
WITH_A_PLAYBOOK = ("infer", "mirror", "train", "workspace")  # of their own
LOCKS = sorted((ROOT / "group_vars").glob("stack_*/*.yml"))
PLAYS = [ROOT / "site.yml", *sorted((ROOT / "playbooks").glob("*.yml"))]
TASKS = sorted((ROOT / "roles").glob("*/tasks/*.yml"))


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def nodes(data: Any) -> Iterator[Any]:
    """`data` and everything in it: folders, lists, keys and values."""
    yield data
    if isinstance(data, dict):
        for key, value in data.items():
            yield key
            yield from nodes(value)
    elif isinstance(data, list):
        for item in data:
            yield from nodes(item)


# --- Roles and playbooks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_role_has_what_a_reader_and_ansible_need(role: str) -> None:
    for name in ("README.md", "defaults/main.yml", "meta/main.yml", "meta/argument_specs.yml", "tasks/main.yml"):
        assert (ROOT / "roles" / role / name).is_file(), name
    assert (ROOT / "roles" / role / "README.md").read_text().startswith(f"# {role}\n")


@pytest.mark.parametrize("role", ROLES)
def test_every_knob_is_specified_with_the_same_default(role: str) -> None:
    defaults = load(ROOT / "roles" / role / "defaults/main.yml")
    options = load(ROOT / "roles" / role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert defaults.keys() == options.keys()
    for name, value in defaults.items():
        assert name.startswith(f"{role}_")
        if isinstance(value, str) and "{{" in value:
            assert "default" not in options[name], f"{name} is computed: a second default would drift"
        else:
            assert options[name]["default"] == value, name


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_is_specified_and_described(role: str) -> None:
    specs = load(ROOT / "roles" / role / "meta/argument_specs.yml")["argument_specs"]
    for entry, spec in specs.items():
        assert (ROOT / "roles" / role / f"tasks/{entry}.yml").is_file()
        assert spec["short_description"]
        for name, option in spec["options"].items():
            assert option["description"], name
            assert option["type"], name


def test_parameters_of_build_source_are_those_that_it_uses() -> None:
    specs = load(ROOT / "roles/stack/meta/argument_specs.yml")["argument_specs"]
    tree = set(re.findall(r"\bstack_tree_\w+", (ROOT / "roles/stack/tasks/build_tree.yml").read_text()))
    assert tree == specs["build_tree"]["options"].keys()
    for given in ("stack/tasks/build_source.yml", "workspace/tasks/main.yml"):
        [parameters] = [
            node["vars"]
            for node in nodes(load(ROOT / "roles" / given))
            if isinstance(node, dict) and "vars" in node and node["vars"].keys() & tree
        ]
        assert parameters.keys() == tree
    used = set(re.findall(r"\bstack_build_\w+", (ROOT / "roles/stack/tasks/build_source.yml").read_text()))
    assert used == specs["build_source"]["options"].keys()
    for role in ("cocoapi", "detectron"):
        [task] = load(ROOT / f"roles/{role}/tasks/main.yml")
        assert task["vars"].keys() == used


@pytest.mark.parametrize("path", TASKS + PLAYS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_needs_privileges_or_hides_a_failure(path: Path) -> None:
    forbidden = {"become", "become_user", "become_method", "ignore_errors", "ignore_unreachable"}
    if path.name == "report.yml":  # whose page shows a server that does not answer as such
        forbidden.remove("ignore_unreachable")
    for node in nodes(load(path)):
        assert not (isinstance(node, str) and node in forbidden)
        assert not (isinstance(node, str) and re.search(r"--user\b", node)), node


def test_site_is_import_lines_alone() -> None:
    for play in load(ROOT / "site.yml"):
        assert play.keys() == {"name", "ansible.builtin.import_playbook"}


def test_every_tag_is_the_name_of_its_role() -> None:
    [play] = load(ROOT / "playbooks/servers.yml")
    assert [entry["tags"] for entry in play["roles"]] == [[entry["role"]] for entry in play["roles"]]
    assert {entry["role"] for entry in play["roles"]} == set(ROLES) - {"stack", *WITH_A_PLAYBOOK}


@pytest.mark.parametrize("role", sorted(set(ROLES) - {"bootstrap", "stack", "mirror"}))
def test_every_role_of_a_server_depends_on_the_look_up(role: str) -> None:
    assert load(ROOT / "roles" / role / "meta/main.yml")["dependencies"] == [{"role": "stack"}]


def test_the_look_up_comes_after_the_python_that_it_runs_on() -> None:
    """Listed as in the play, tags and all: else it would run twice, a remote call more per run."""
    entry = load(ROOT / "playbooks/servers.yml")[0]["roles"][0]
    assert entry["role"] == "bootstrap"
    assert load(ROOT / "roles/stack/meta/main.yml")["dependencies"] == [entry]


# --- Locks ------------------------------------------------------------------------------------------------------------


def artifacts(data: Any) -> list[dict[str, Any]]:
    return [node for node in nodes(data) if isinstance(node, dict) and {"filename", "sha256"} & node.keys()]


def problems(artifact: dict[str, Any]) -> list[str]:
    """What is wrong with one file of a lock."""
    where = {"pypi": ["project", "version"], "debian": ["path"], "url": ["urls"]}
    built = "inputs" in artifact
    found = []
    if not built and artifact.get("source") not in where:
        found.append("source")
    wanted = [] if built else ["size", "licence", "sha256", *where.get(artifact.get("source", ""), [])]
    found += [name for name in wanted if name not in artifact]
    if not built and not re.fullmatch("[0-9a-f]{64}|None", str(artifact.get("sha256"))):
        found.append("sha256")
    unknown = artifact.get("sha256") is None and artifact.get("size") is None  # roles refuse it
    if not built and not unknown and not (isinstance(artifact.get("size"), int) and artifact["size"] > 0):
        found.append("size")
    if "/" in artifact["filename"]:
        found.append("filename")
    return found


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_group_vars_hold_the_lock_alone(path: Path) -> None:
    """Beside the playbooks they would beat what a user sets in an inventory for the same group."""
    data = load(path)
    assert data.keys() == {"stack_lock"}
    assert f"stack_{data['stack_lock']['name']}" == path.parent.name


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_lock_pins_every_byte(path: Path) -> None:
    lock = load(path)["stack_lock"]
    listed = artifacts(lock)
    assert listed
    assert [(item["filename"], problems(item)) for item in listed if problems(item)] == []
    commits = [node["commit"] for node in nodes(lock) if isinstance(node, dict) and "commit" in node]
    assert commits and all(re.fullmatch("[0-9a-f]{40}", commit) for commit in commits)


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_name_of_a_lock_means_one_sum(path: Path) -> None:
    sums: dict[str, set[Any]] = {}
    for item in artifacts(load(path)["stack_lock"]):
        sums.setdefault(item["filename"], set()).add(item.get("sha256"))
    assert [name for name, found in sums.items() if len(found) > 1] == []


# --- Inventories and group_vars ---------------------------------------------------------------------------------------


def ansible_playbook(home: Path, folder: Path, *arguments: str) -> str:
    """What ansible-playbook prints, run from the working directory `folder` by somebody whose HOME is `home`."""
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),  # found by itself only in the working directory
            "ANSIBLE_HOME": str(home / "ansible"),
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "PATH": os.environ["PATH"],
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def prefix_seen(home: Path, folder: Path, playbook: str, *arguments: str) -> str:
    """The prefix that a playbook's look-up on this machine finds, in check mode: a knob made of the lock."""
    # No role has this tag, so that the look-up is all that runs.
    look_up = ("--check", "--tags", "look_up", "-v", "--extra-vars", f"ansible_python_interpreter={sys.executable}")
    output = ansible_playbook(home, folder, playbook, *look_up, *arguments)
    found = re.findall(r"^ +prefix: (\S+)$", output, re.MULTILINE)
    assert len(found) == 1, output
    return str(found[0])


def write(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data))
    return path


def inventory_of(folder: Path, group: str) -> Path:
    return write(folder / "hosts.yml", {group: {"hosts": {"here": {"ansible_connection": "local"}}}})


@pytest.mark.parametrize("playbook", ["site.yml", "playbooks/servers.yml"])
def test_locks_are_seen_by_every_playbook_and_from_every_folder(playbook: str, tmp_path: Path) -> None:
    inventory = inventory_of(tmp_path / "mine", "stack_cuda90_wheel")
    expected = str(tmp_path / "detectron/cuda90_wheel")
    assert prefix_seen(tmp_path, ROOT, playbook) == expected
    assert prefix_seen(tmp_path, tmp_path, str(ROOT / playbook), "--inventory", str(inventory)) == expected
    assert not (tmp_path / "detectron").exists()


def test_a_knob_in_the_users_group_vars_beats_the_default(tmp_path: Path) -> None:
    inventory = inventory_of(tmp_path / "mine", "stack_cuda90_wheel")
    write(tmp_path / "mine/group_vars/stack_cuda90_wheel.yml", {"stack_prefix": str(tmp_path / "large")})
    assert prefix_seen(tmp_path, ROOT, "site.yml", "--inventory", str(inventory)) == str(tmp_path / "large")


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_stack_of_ones_own_lies_beside_the_inventory(as_folder: bool, tmp_path: Path) -> None:
    lock = load(ROOT / "group_vars/stack_cuda90_wheel/lock.yml")["stack_lock"] | {"name": "mine"}
    inventory = inventory_of(tmp_path / "mine", "stack_mine")
    write(tmp_path / "mine/group_vars/stack_mine/lock.yml", {"stack_lock": lock})
    given = ("--inventory", str(inventory.parent if as_folder else inventory))
    assert prefix_seen(tmp_path, tmp_path, str(ROOT / "site.yml"), *given) == str(tmp_path / "detectron/mine")


def test_the_example_inventory_is_a_fleet(tmp_path: Path) -> None:
    listed = ansible_playbook(tmp_path, ROOT, "--inventory", "inventory/example", "site.yml", "--list-hosts")
    assert sorted(re.findall(r"^ +(gpu\d)$", listed, re.MULTILINE)) == ["gpu1", "gpu2", "gpu3"]


# --- Activation -------------------------------------------------------------------------------------------------------

GENERATION = "/data/alice/detectron/cuda90_wheel/generations/7"
INSTALLS = {role: f"/data/alice/detectron/cuda90_wheel/opt/{role}/1-{'0' * 12}" for role in ROLES}

# How each shell that is here sources a file $1 twice and then tells its environment; all of it under `set -eu`.
SHELLS = {
    shell: script
    for shell, script in {
        "sh": "set -eu; . '{file}'; . '{file}'; env -0",
        "bash": "set -euo pipefail; . '{file}'; . '{file}'; env -0",
        "dash": "set -eu; . '{file}'; . '{file}'; env -0",
        "zsh": "set -eu; . '{file}'; . '{file}'; env -0",
        "ksh": "set -eu; . '{file}'; . '{file}'; env -0",
        "csh": "source {file}; source {file}; env -0",
        "tcsh": "source {file}; source {file}; env -0",
    }.items()
    if shutil.which(shell)
}

ENVIRONMENTS: dict[str, dict[str, str]] = {
    "bare": {},
    "empty": {"LD_LIBRARY_PATH": "", "PYTHONPATH": ""},
    "empty elements": {"LD_LIBRARY_PATH": ":/cuda/lib64::/mine/lib:", "PATH": "/usr/bin::/bin:"},
    "only colons": {"LD_LIBRARY_PATH": "::"},
    "foreign python": {"PYTHONHOME": "/conda3", "PYTHONPATH": "/conda3/lib", "CONDA_PKGS_DIRS": "/conda3/pkgs"},
    "another generation": {"DETECTRON_GENERATION": "/elsewhere/generations/1", "LD_LIBRARY_PATH": "/elsewhere/lib64"},
    "special characters": {"LD_LIBRARY_PATH": "/with space:/with$dollar:/with%s:/with\\back"},
}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The activation files of a generation, by name: rendered by Ansible's own templar, without a host."""
    role = ROOT / "roles/activation"
    init_plugin_loader()
    loader = DataLoader()
    variables = loader.load_from_file(str(role / "vars/main.yml"), trusted_as_template=True)
    variables |= {
        "ansible_search_path": [str(role)],
        "stack_lock": {"name": "cuda90_wheel"},
        "stack_lookup": {
            "prefix": "/data/alice/detectron/cuda90_wheel",
            "installs": {name: {"path": path} for name, path in INSTALLS.items()},
        },
    }
    templar = Templar(loader=loader, variables=variables)
    folder = tmp_path_factory.mktemp("generation")
    for name in ("activate.sh", "activate.csh", "modulefile"):
        content = templar.template(variables["__activation_files"][name])
        (folder / name).write_text(content.replace("@GENERATION@", GENERATION))
    return {path.name: path for path in folder.iterdir()}


def activated(rendered: dict[str, Path], shell: str, environment: dict[str, str]) -> dict[str, str]:
    """The environment after activation in `shell`, started with `environment` alone."""
    script = SHELLS[shell].format(file=rendered["activate.csh" if shell.endswith("csh") else "activate.sh"])
    command = [shutil.which(shell) or shell, *(["-f"] if shell.endswith("csh") else []), "-c", script]
    done = subprocess.run(command, env={"PATH": "/usr/bin:/bin"} | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if line)


def expected(environment: dict[str, str]) -> dict[str, str]:
    """The variables that activation sets, whatever the shell."""

    def after(name: str, *folders: str) -> str:
        before = ({"PATH": "/usr/bin:/bin"} | environment).get(name, "")
        return ":".join([*folders, *filter(None, before.split(":"))])

    return {
        "DETECTRON_GENERATION": GENERATION,
        "DETECTRON": INSTALLS["detectron"],
        "PATH": after("PATH", f"{GENERATION}/bin", f"{INSTALLS['caffe2']}/bin", f"{INSTALLS['anaconda2']}/bin"),
        "LD_LIBRARY_PATH": after("LD_LIBRARY_PATH", f"{GENERATION}/usr/local/lib64"),
        "PYTHONPATH": f"{INSTALLS['cocoapi']}/PythonAPI:{INSTALLS['detectron']}",
        "PYTHONNOUSERSITE": "1",
        "MPLBACKEND": "Agg",
    }


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS.keys())
def test_activation_is_the_same_in_every_shell(
    shell: str, environment: dict[str, str], rendered: dict[str, Path]
) -> None:
    """Also twice, also under `set -eu`, and never with an empty element, which would mean the current folder."""
    found = activated(rendered, shell, environment)
    wanted = expected(environment)
    assert {name: found.get(name) for name in wanted} == wanted
    assert "PYTHONHOME" not in found


def test_the_modulefile_says_what_activate_sh_does(rendered: dict[str, Path]) -> None:
    told = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": ""}
    text = rendered["modulefile"].read_text()
    assert text.startswith("#%Module1.0\n")
    for command, name, value in re.findall(r"^(setenv|prepend-path) (\w+) \{(.*)\}$", text, re.MULTILINE):
        told[name] = value if command == "setenv" else f"{value}:{told[name]}".rstrip(":")
    assert re.search(r"^unsetenv PYTHONHOME$", text, re.MULTILINE)
    by_shell = activated(rendered, "sh", {})
    assert told == {name: by_shell[name] for name in told}
    assert set(by_shell) - {"PWD", "OLDPWD", "SHLVL", "_"} == set(told)
