"""playbooks/lock.yml as a person runs it, with a package index of this machine."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WHEEL = "six-1.11.0-py2.py3-none-any.whl"
CONTENT = b"a wheel"
SUM = hashlib.sha256(CONTENT).hexdigest()
LOCK = """---
# Mine.
stack_lock:
  name: mine
  six:
    filename: null
    source: pypi
    project: six
    version: "1.11.0"
    sha256: null  # the index knows
    licence: MIT
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        """Nothing on the test's output."""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """Address of a package index that has one wheel."""
    page = tmp_path / "site/simple/six/index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="/{WHEEL}#sha256={SUM}">{WHEEL}</a>')
    (tmp_path / "site" / WHEEL).write_bytes(CONTENT)
    handler = functools.partial(Quiet, directory=str(tmp_path / "site"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "group_vars/stack_mine/lock.yml"
    path.parent.mkdir(parents=True)
    path.write_text(LOCK)
    return path


def complete(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    """(exit status, output) of the playbook, run in `tmp_path`."""
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            str(ROOT / "playbooks/lock.yml"),
            *(f"--extra-vars={argument}" if "=" in argument else argument for argument in arguments),
            f"--extra-vars=mirror_path={tmp_path / 'mirror'}",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_HOME": str(tmp_path / "ansible"),
            "HOME": str(tmp_path),
            "LC_ALL": "C.UTF-8",
            "PATH": os.environ["PATH"],
            "no_proxy": "127.0.0.1",
        },
    )
    return done.returncode, done.stdout + done.stderr


def relative(lock: Path, tmp_path: Path) -> str:
    return f"lock_file={lock.relative_to(tmp_path)}"


def test_a_lock_is_completed_beside_the_original_and_then_in_its_place(index: str, lock: Path, tmp_path: Path) -> None:
    asked = (relative(lock, tmp_path), f"mirror_pypi_index={index}")
    status, output = complete(tmp_path, *asked)
    assert status == 0, output
    assert "the package index states the same sha256" in output
    assert re.search(rf"^\+ +sha256: {SUM}  # the index knows$", output, re.MULTILINE), "no diff is shown"
    assert lock.read_text() == LOCK
    written = lock.with_name("lock.yml.new")
    assert f"mv {written} {lock}" in output
    assert (tmp_path / "mirror/sha256" / SUM / WHEEL).read_bytes() == CONTENT

    expected = LOCK.replace("filename: null", f"filename: {WHEEL}").replace("null  #", f"{SUM}  #")
    expected = expected.replace("knows\n", f"knows\n    size: {len(CONTENT)}\n")
    assert written.read_text() == expected
    status, output = complete(tmp_path, *asked, "lock_write=true")
    assert (status, lock.read_text()) == (0, expected)
    status, output = complete(tmp_path, relative(lock, tmp_path), "mirror_pypi_index=http://127.0.0.1:1")
    assert status == 0 and "lacks nothing" in output and "changed=0" in output


def test_check_mode_lists_what_is_missing_and_asks_nobody(index: str, lock: Path, tmp_path: Path) -> None:
    status, output = complete(tmp_path, relative(lock, tmp_path), "mirror_pypi_index=http://127.0.0.1:1", "--check")
    assert status == 0, output
    assert "six lacks filename, sha256, size." in output
    assert not lock.with_name("lock.yml.new").exists() and not (tmp_path / "mirror").exists()


def test_what_could_not_be_found_fails_after_the_rest_is_written(index: str, lock: Path, tmp_path: Path) -> None:
    lost = "  lost: {source: url, urls: ['http://127.0.0.1:1/a.tgz'], sha256: null}\n"
    lock.write_text(LOCK + lost)
    status, output = complete(tmp_path, relative(lock, tmp_path), f"mirror_pypi_index={index}")
    said = re.sub(r"\s+", " ", output)
    assert status == 2
    assert "still lacks what could not be found. lost: write its licence; nothing tells it." in said
    assert "http://127.0.0.1:1/a.tgz: <urlopen error" in said
    written = lock.with_name("lock.yml.new").read_text()
    assert written.endswith(lost) and yaml.safe_load(written)["stack_lock"]["six"]["sha256"] == SUM


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Name one lock"),
        (("lock_file=absent.yml",), "absent.yml is not a lock"),
    ],
)
def test_one_lock_has_to_be_named(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    status, output = complete(tmp_path, *arguments)
    assert status == 2 and says in output


def test_shipped_locks_lack_nothing_that_can_be_had(tmp_path: Path) -> None:
    status, output = complete(tmp_path, "lock_stack=cuda90_wheel", "--check")
    assert status == 0 and "lock.yml lacks nothing." in output


# --- The closure of a conda package -----------------------------------------------------------------------------------


def put_channel(folder: Path, *packages: tuple[str, list[str]]) -> None:
    """A conda channel as those of 2018: no noarch, and of sums md5 alone. `packages`: (name-version-build, depends)."""
    (folder / "linux-64").mkdir(parents=True)
    index = {}
    for title, depends in packages:
        name, version, build = title.rsplit("-", 2)
        content = f"the bytes of {title} in {folder.name}".encode()
        (folder / f"linux-64/{title}.tar.bz2").write_bytes(content)
        record: dict[str, Any] = {"name": name, "version": version, "build": build, "build_number": 0}
        record |= {"depends": depends, "license": "BSD", "md5": hashlib.md5(content).hexdigest(), "size": len(content)}
        index[f"{title}.tar.bz2"] = record
    (folder / "linux-64/repodata.json").write_text(json.dumps({"packages": index}))


@pytest.fixture
def channels(index: str, tmp_path: Path) -> list[str]:
    """Addresses of two channels, over HTTP and in a folder: Caffe2's, and one with newer versions of all it needs."""
    put_channel(
        tmp_path / "site/caffe2",
        ("caffe2-cuda8.0-cudnn7-0.8-py27_1", ["python >=2.7,<2.8.0a0", "numpy >=1.11", "gflags"]),
        ("caffe2-cuda8.0-cudnn7-0.9-py36_1", ["python >=3.6,<3.7.0a0", "numpy >=1.11", "gflags"]),
        ("gflags-2.2.1-1", ["libgcc >=5"]),
        ("setuptools-99-py27_0", []),
    )
    put_channel(
        tmp_path / "main",
        ("gflags-2.2.2-1", []),
        ("libgcc-7.2.0-1", []),
        ("numpy-1.14.3-py27_0", ["python >=2.7,<2.8.0a0"]),
        ("numpy-1.15.0-py36_0", ["python >=3.6,<3.7.0a0"]),
        ("python-2.7.19-0", []),
        ("readline-8-0", []),
    )
    return [f"{index.removesuffix('/simple')}/caffe2", f"file://{tmp_path}/main"]


def test_the_closure_of_a_conda_package_is_what_the_stacks_conda_would_install(
    channels: list[str], lock: Path, tmp_path: Path
) -> None:
    shipped = yaml.safe_load((ROOT / "group_vars/stack_cuda90_wheel/lock.yml").read_text())["stack_lock"]
    (tmp_path / "mirror").mkdir()
    for name in ("built", "manifest.json"):
        (tmp_path / "mirror" / name).symlink_to((ROOT / "mirror" / name).resolve())
    channel = {"name": "caffe2_channel", "version": 1, "filename": "mine.tar", "specs": [], "channels": channels}
    caffe2 = {key: shipped["caffe2"][key] for key in ("conda_packages", "packages")}
    text = yaml.safe_dump({"stack_lock": {"anaconda2": shipped["anaconda2"], "caffe2": {"channel": channel, **caffe2}}})

    lock.write_text(text.replace("specs: []", "specs: [caffe2-cuda8.0-cudnn7-gcc4.8]"))
    status, output = complete(tmp_path, relative(lock, tmp_path))
    said = re.sub(r"\s+", " ", output)
    assert status == 2, output
    assert "conda says: PackageNotFoundError: Package missing" in said and "- caffe2-cuda8.0-cudnn7-gcc4.8" in said
    assert not lock.with_name("lock.yml.new").exists()

    lock.write_text(text.replace("specs: []", "specs: [caffe2-cuda8.0-cudnn7]"))
    status, output = complete(tmp_path, relative(lock, tmp_path), "lock_write=true")
    assert status == 0, output
    assert "libgcc-7.2.0-1.tar.bz2, sha256" in output and "its channel states the same md5" in output
    found = yaml.safe_load(lock.read_text())["stack_lock"]["caffe2"]
    # Of the first channel that has it, for this Python; and nothing that the environment has already.
    assert found["channel"]["packages"] == [
        "caffe2-cuda8.0-cudnn7-0.8-py27_1",
        "gflags-2.2.1-1",
        "libgcc-7.2.0-1",
        "numpy-1.14.3-py27_0",
    ]
    gflags = found["channel"]["inputs"][1]
    assert gflags["urls"] == [f"{channels[0]}/linux-64/gflags-2.2.1-1.tar.bz2"]
    kept = tmp_path / f"mirror/sha256/{gflags['sha256']}/gflags-2.2.1-1.tar.bz2"
    assert kept.read_bytes() == b"the bytes of gflags-2.2.1-1 in caffe2"
    before, after = ([item["project"] for item in packages] for packages in (caffe2["packages"], found["packages"]))
    assert sorted([*after, "numpy"]) == sorted(before) and "numpy is no longer pip's" in output
    assert list((tmp_path / "mirror/tmp").iterdir()) == []
    assert complete(tmp_path, relative(lock, tmp_path), "--check")[1].count("lacks nothing") == 1
