"""anaconda2: a conda of the stack's own, which touches nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from testinfra.host import Host


def test_conda_tells_where_each_package_came_from(host: Host, install: str) -> None:
    lines = host.check_output(f"{install}/bin/conda list").splitlines()
    builds = {fields[0]: fields[2] for line in lines if not line.startswith("#") and (fields := line.split())}
    assert builds["python"].startswith("debian")
    assert builds["conda"].startswith("py27_pypi")
    assert all(build.startswith(("debian", "py27_pypi")) for build in builds.values()), builds


def test_its_python_is_a_real_one(install: str, python: Callable[..., str]) -> None:
    modules = "bz2, ctypes, curses, hashlib, readline, sqlite3, ssl, sys, zlib"
    ask = f"import {modules}; print(sys.version.split()[0], sys.prefix)"
    assert python(f"{install}/bin/python", ask) == str(("2.7.18", install))


def test_receipt_names_the_installer_and_its_inputs(receipt: dict[str, Any]) -> None:
    inputs = {item["filename"]: item["sha256"] for item in receipt["inputs"]["installer"]["inputs"]}
    assert any(name.startswith("python2.7-minimal") for name in inputs)
    assert all(len(sha256) == 64 for sha256 in inputs.values())
