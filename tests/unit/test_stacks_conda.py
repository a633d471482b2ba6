"""The conda stacks: what roles make of their locks, without a server; stack_cuda80_conda has not been run at all."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.stack_installs import digest, unpinned
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).resolve().parents[2]
CONDA = "/p/opt/anaconda2/1"
CAFFE2 = "/p/opt/caffe2/1"
INSTALLER_PACKAGES = [
    f"{CONDA}/pkgs/{name}.tar.bz2"
    for name in (
        "python-2.7.18-debian_0",
        "pip-20.3.4-py27_pypi_0",
        "setuptools-44.1.1-py27_pypi_0",
        "wheel-0.37.1-py27_pypi_0",
        "glib-2.66.8-debian_0",
    )
]


@pytest.fixture(scope="module", autouse=True)
def filters() -> None:
    init_plugin_loader()
    filter_loader.add_directory(str(ROOT / "plugins/filter"))


def lock_of(stack: str) -> dict[str, Any]:
    lock: dict[str, Any] = yaml.safe_load((ROOT / f"group_vars/stack_{stack}/lock.yml").read_text())["stack_lock"]
    return lock


def of_role(name: str) -> Any:
    """A file of role caffe2, its expressions not yet evaluated."""
    return DataLoader().load_from_file(str(ROOT / "roles/caffe2" / name), trusted_as_template=True)


def evaluated(expression: Any, **variables: Any) -> Any:
    """What Ansible makes of an expression of role caffe2, with the project's filters."""
    return Templar(loader=DataLoader(), variables={**of_role("vars/main.yml"), **variables}).template(expression)


def inputs(lock: dict[str, Any]) -> dict[str, Any]:
    """What shapes the install of caffe2."""
    shaping: dict[str, Any] = evaluated(of_role("vars/main.yml")["__caffe2_install"], stack_lock=lock)["inputs"]
    return shaping


def explicit_list(lock: dict[str, Any]) -> list[str]:
    """The files that conda installs, as the task of role caffe2 names them."""
    block = next(task for task in of_role("tasks/main.yml") if "block" in task)
    create = next(task for task in block["block"] if task["name"] == "Create the conda environment")
    installs = {"anaconda2": {"path": CONDA}, "caffe2": {"digest": "0" * 12}}
    given = {
        "__caffe2_path": CAFFE2,
        "stack_lock": lock,
        "stack_lookup": {"prefix": "/p", "installs": installs},
        "stack_environment": {"TMPDIR": "/p/var/tmp/s"},
        "stack_run": [],
    }
    argv: list[str] = evaluated(create["ansible.builtin.command"]["argv"], **{**block["vars"], **given})
    return argv[argv.index("--prefix") + 2 :]


@pytest.fixture
def cuda80() -> dict[str, Any]:
    """The lock of stack_cuda80_conda with a closure of one package, as playbooks/lock.yml would write it."""
    lock = copy.deepcopy(lock_of("cuda80_conda"))
    name = "caffe2-cuda8.0-cudnn7-0.8.dev-py27_2018.05.14"
    file = {"filename": f"{name}.tar.bz2", "source": "url", "urls": [f"https://example.org/{name}.tar.bz2"]}
    lock["caffe2"]["channel"]["packages"] = [name]
    lock["caffe2"]["channel"]["inputs"] = [{**file, "sha256": "1" * 64, "size": 1, "licence": "Apache-2.0"}]
    return lock


def test_the_two_ways_to_caffe2_differ_in_nothing_else() -> None:
    conda, wheel = lock_of("cuda90_conda"), lock_of("cuda90_wheel")
    for part in ("nvidia_libs", "anaconda2", "cocoapi", "detectron"):
        assert conda[part] == wheel[part], part
    packages = conda["caffe2"]["packages"] + conda["caffe2"]["channel"]["inputs"]
    assert sorted(packages, key=lambda item: str(item["filename"])) == sorted(
        wheel["caffe2"]["packages"], key=lambda item: str(item["filename"])
    )
    assert conda["caffe2"]["operators"] == wheel["caffe2"]["operators"]


def test_cuda101_differs_where_cuda_does_and_nowhere_else() -> None:
    new, old = lock_of("cuda101_wheel"), lock_of("cuda90_wheel")
    for part in ("anaconda2", "cocoapi", "detectron"):
        assert new[part] == old[part], part
    assert new["nvidia_libs"]["patchelf"] == old["nvidia_libs"]["patchelf"]
    assert new["nvidia_libs"]["expect"] == {"cudnn": 7605, "nccl": "2.4.2+cuda10.1"}
    changed = [item["project"] for item in new["caffe2"]["packages"] if item not in old["caffe2"]["packages"]]
    assert changed == ["protobuf", "torch"]
    assert [item["project"] for item in new["caffe2"]["packages"]] == [
        item["project"] for item in old["caffe2"]["packages"]
    ]
    assert explicit_list(new) == INSTALLER_PACKAGES
    assert unpinned(new) == []


def test_a_stack_without_a_channel_is_shaped_by_its_packages_alone() -> None:
    """So that role caffe2 did not make anew what was installed before it knew of channels."""
    lock = lock_of("cuda90_wheel")
    assert inputs(lock).keys() == {"conda_packages", "packages"}
    assert explicit_list(lock) == INSTALLER_PACKAGES


def test_conda_installs_an_explicit_list_of_files_from_the_channel() -> None:
    lock = lock_of("cuda90_conda")
    assert inputs(lock).keys() == {"conda_packages", "channel", "packages"}
    assert explicit_list(lock) == INSTALLER_PACKAGES + [
        f"{CAFFE2}/channels/caffe2/linux-64/{name}.tar.bz2" for name in lock["caffe2"]["channel"]["packages"]
    ]


def test_cuda80_is_refused_until_its_closure_is_known(cuda80: dict[str, Any]) -> None:
    [sentence] = unpinned(inputs(lock_of("cuda80_conda")))
    assert "The sha256 of caffe2-cuda8.0-cudnn7, and of all that conda installs with it, is not known" in sentence
    assert "playbooks/lock.yml" in sentence
    assert unpinned(inputs(cuda80)) == []


def test_cuda80_installs_the_documents_package(cuda80: dict[str, Any]) -> None:
    assert explicit_list(cuda80)[len(INSTALLER_PACKAGES) :] == [
        f"{CAFFE2}/channels/caffe2/linux-64/caffe2-cuda8.0-cudnn7-0.8.dev-py27_2018.05.14.tar.bz2"
    ]


def test_another_sum_of_an_input_makes_another_channel_and_another_install(cuda80: dict[str, Any]) -> None:
    key = trust_as_template("{{ stack_lock.caffe2.channel | built_key }}")
    before = evaluated(key, stack_lock=cuda80), digest(inputs(cuda80))
    cuda80["caffe2"]["channel"]["inputs"][0]["sha256"] = "2" * 64
    after = evaluated(key, stack_lock=cuda80), digest(inputs(cuda80))
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_cuda80_takes_the_documents_cudnn_and_nccl() -> None:
    libraries = lock_of("cuda80_conda")["nvidia_libs"]
    assert libraries["expect"] == {"cudnn": 7102, "nccl": "2.2.13+cuda8.0"}
    assert libraries["wheel"]["project"] == "cupy-cuda80"


def test_pip_owns_nothing_that_conda_owns() -> None:
    for stack in ("cuda90_conda", "cuda80_conda"):
        lock = lock_of(stack)["caffe2"]
        conda = lock["conda_packages"] + (lock["channel"]["packages"] or [])
        owned = {name.rsplit("-", 2)[0] for name in conda}
        assert owned & {item["project"] for item in lock["packages"]} == set(), stack
