"""The recipe of the conda channel: on wheels and packages of a few bytes. The real ones take minutes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from recipes.anaconda2.builder.conda_package import Package, write_package
from recipes.anaconda2.builder.errors import RecipeError
from recipes.anaconda2.builder.tree import PLACEHOLDER, write_text
from recipes.caffe2_channel.channel import build, main

ROOT = Path(__file__).parents[2]
OPERATORS = "torch/lib/libcaffe2_detectron_ops_gpu.so"
UPSTREAM = Package("caffe2-cuda8.0-cudnn7", "0.8.dev", "py27_2018.05.14", ["python 2.7*"])


def wheel(folder: Path, filename: str, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(folder / filename, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return folder / filename


def sdist(folder: Path, filename: str, files: dict[str, str]) -> Path:
    with tarfile.open(folder / filename, "w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(f"{filename.removesuffix('.tar.gz')}/{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return folder / filename


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The inputs of the channel, by file name."""
    entry_points = "[console_scripts]\nfuturize = libfuturize.main:main\n"
    paths = [
        wheel(tmp_path, "torch-1.0.1-cp27-cp27mu-manylinux1_x86_64.whl", {OPERATORS: "", "caffe2/__init__.py": ""}),
        wheel(tmp_path, "numpy-1.14.3-cp27-cp27mu-manylinux1_x86_64.whl", {"numpy/__init__.py": ""}),
        wheel(tmp_path, "protobuf-3.5.2.post1-cp27-cp27mu-manylinux1_x86_64.whl", {"google/protobuf/__init__.py": ""}),
        wheel(tmp_path, "six-1.11.0-py2.py3-none-any.whl", {"six.py": ""}),
        sdist(
            tmp_path,
            "future-0.16.0.tar.gz",
            {
                "setup.py": "",
                "src/__init__.py": "",
                "src/past/__init__.py": "",
                "src/tests/__init__.py": "",
                "src/future.egg-info/entry_points.txt": entry_points,
            },
        ),
    ]
    return {path.name: path for path in paths}


def built(files: dict[str, Path], folder: Path) -> Path:
    """The channel's tar, made in a new folder."""
    (folder / "work").mkdir(parents=True)
    build(files, folder / "channel.tar", folder / "work")
    return folder / "channel.tar"


def index(channel: tarfile.TarFile, platform: str = "linux-64") -> dict[str, Any]:
    loaded: dict[str, Any] = json.load(channel.extractfile(f"{platform}/repodata.json") or pytest.fail())
    return loaded


def names_in(channel: tarfile.TarFile, package: str) -> list[str]:
    with tarfile.open(fileobj=channel.extractfile(f"linux-64/{package}")) as archive:
        return [name for name in archive.getnames() if not name.startswith("info/")]


def test_the_same_inputs_make_the_same_bytes(files: dict[str, Path], tmp_path: Path) -> None:
    first, second = built(files, tmp_path / "first"), built(dict(reversed(files.items())), tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()


def test_the_channel_holds_what_the_lock_installs_of_it(files: dict[str, Path], tmp_path: Path) -> None:
    lock = yaml.safe_load((ROOT / "group_vars/stack_cuda90_conda/lock.yml").read_text())["stack_lock"]["caffe2"]
    assert sorted(item["filename"] for item in lock["channel"]["inputs"]) == sorted(files)
    with tarfile.open(built(files, tmp_path / "out")) as channel:
        packages = index(channel)["packages"]
        assert sorted(packages) == [f"{name}.tar.bz2" for name in lock["channel"]["packages"]]
        assert index(channel, "noarch")["packages"] == {}


def test_the_index_says_what_each_package_is_and_its_sums(files: dict[str, Path], tmp_path: Path) -> None:
    with tarfile.open(built(files, tmp_path / "out")) as channel:
        for name, entry in index(channel)["packages"].items():
            data = (channel.extractfile(f"linux-64/{name}") or pytest.fail()).read()
            assert entry["sha256"] == hashlib.sha256(data).hexdigest()
            assert entry["md5"] == hashlib.md5(data, usedforsecurity=False).hexdigest()
            assert entry["size"] == len(data)
            assert entry["depends"][0] == "python 2.7*"


def test_the_package_says_where_it_comes_from_and_has_its_operators_in_lib(
    files: dict[str, Path], tmp_path: Path
) -> None:
    package = "caffe2-cuda9.0-cudnn7-1.0.1-py27_torch1.0.1_0.tar.bz2"
    with tarfile.open(built(files, tmp_path / "out")) as channel:
        assert "lib/libcaffe2_detectron_ops_gpu.so" in names_in(channel, package)
        with tarfile.open(fileobj=channel.extractfile(f"linux-64/{package}")) as archive:
            about = json.load(archive.extractfile("info/about.json") or pytest.fail())
    assert "repacked from PyPI's wheel of torch" in about["summary"]


def test_an_sdist_gives_its_packages_and_scripts_and_nothing_else(files: dict[str, Path], tmp_path: Path) -> None:
    package = "future-0.16.0-py27_pypi_0.tar.bz2"
    site = "lib/python2.7/site-packages"
    with tarfile.open(built(files, tmp_path / "out")) as channel:
        assert names_in(channel, package) == [
            "bin/futurize",
            f"{site}/future-0.16.0-py2.7.egg-info/entry_points.txt",
            f"{site}/past/__init__.py",
        ]
        with tarfile.open(fileobj=channel.extractfile(f"linux-64/{package}")) as archive:
            script = (archive.extractfile("bin/futurize") or pytest.fail()).read().decode()
    assert script.startswith(f"#!{PLACEHOLDER}/bin/python\n")


def test_a_conda_package_is_taken_as_it_is(tmp_path: Path) -> None:
    write_text(tmp_path / "root", "lib/libcaffe2.so", "")
    package = write_package(UPSTREAM, tmp_path / "root", tmp_path)
    with tarfile.open(built({package.name: package}, tmp_path / "out")) as channel:
        assert (channel.extractfile(f"linux-64/{package.name}") or pytest.fail()).read() == package.read_bytes()
        assert index(channel)["packages"][package.name]["build"] == "py27_2018.05.14"


def test_a_conda_package_under_another_name_is_refused(tmp_path: Path) -> None:
    package = write_package(UPSTREAM, tmp_path, tmp_path)
    other = "caffe2-cuda8.0-cudnn7-0.8.dev-py27_2018.08.12.tar.bz2"
    with pytest.raises(RecipeError, match=r"py27_2018\.08\.12\.tar\.bz2 is another package by its own description"):
        built({other: package.rename(tmp_path / other)}, tmp_path / "out")


def test_what_is_no_conda_package_is_refused(tmp_path: Path) -> None:
    package = tmp_path / UPSTREAM.filename
    package.write_text("404 not found")
    with pytest.raises(RecipeError, match="cannot be read as a conda package"):
        built({package.name: package}, tmp_path / "out")


def test_a_wheel_of_torch_without_detectrons_operators_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    name = "torch-1.0.1-cp27-cp27mu-manylinux1_x86_64.whl"
    files[name] = wheel(tmp_path / "other", name, {"torch/__init__.py": ""})
    with pytest.raises(RecipeError, match=r"has no libcaffe2_detectron_ops_gpu\.so"):
        built(files, tmp_path / "out")


def test_an_input_that_is_part_of_no_package_is_named(files: dict[str, Path], tmp_path: Path) -> None:
    extra = wheel(tmp_path, "scipy-1.1.0-cp27-cp27mu-manylinux1_x86_64.whl", {})
    with pytest.raises(RecipeError, match=r"scipy-1\.1\.0.* is part of no package"):
        built({**files, extra.name: extra}, tmp_path / "out")


def test_a_missing_input_ends_the_build_with_a_sentence(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del files["six-1.11.0-py2.py3-none-any.whl"]
    listed = tmp_path / "inputs.json"
    listed.write_text(json.dumps({name: str(path) for name, path in files.items()}))
    (tmp_path / "out").mkdir()
    assert main(["--inputs", str(listed), "--output", str(tmp_path / "out/channel.tar")]) == 1
    assert capsys.readouterr().err == (
        "ERROR: no wheel of six among the inputs: add it to the recipe's inputs in the lock.\n"
    )
    assert list((tmp_path / "out").iterdir()) == []
