"""The closure of a conda package: what is refused before conda is asked (tests/integration/test_lock.py asks it)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.lock_conda import closure, read_index
from ansible.module_utils.lock_values import Files
from ansible.module_utils.stack_fetch import Upstream
from ansible.module_utils.stack_installs import StackError

NAME = "six-1.11.0-py27_0.tar.bz2"
CONTENT = b"a conda package"
MD5 = hashlib.md5(CONTENT).hexdigest()
SUM = hashlib.sha256(CONTENT).hexdigest()


def channel(folder: Path, platform: str = "linux-64", **record: Any) -> str:
    """Address of a channel with one package."""
    (folder / platform).mkdir(parents=True, exist_ok=True)
    (folder / platform / NAME).write_bytes(CONTENT)
    index = {"packages": {NAME: {"name": "six", "version": "1.11.0", "build": "py27_0", **record}}}
    (folder / platform / "repodata.json").write_text(json.dumps(index))
    return f"file://{folder}"


def lock(**channel: Any) -> dict[str, Any]:
    installer = {"name": "anaconda2", "version": 1, "filename": "Anaconda2.sh", "inputs": []}
    return {
        "anaconda2": {"installer": installer},
        "caffe2": {"channel": {"specs": ["six"], **channel}, "conda_packages": [], "packages": []},
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"channels": ["caffe2"]}, r"\['caffe2'\]: give each channel as an address"),
        ({"channels": []}, "channels: give each channel as an address"),
        ({}, "channels: give each channel as an address"),
        ({"channels": ["file:///x"], "specs": ["--copy"]}, "specs: '--copy' names no conda package"),
        ({"channels": ["file:///x"], "specs": ["./six"]}, r"specs: '\./six' names no conda package"),
        ({"channels": ["file:///x"]}, r"file:///x/linux-64/repodata\.json: .*No such file"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_reason(given: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(StackError, match=says):
        closure(lock(**given), tmp_path)
    assert list((tmp_path / "tmp").glob("*") if (tmp_path / "tmp").exists() else []) == []


def test_without_the_installer_in_the_mirror_its_build_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"Anaconda2\.sh is built.*Build it: `ansible-playbook playbooks/mirror\.yml`"):
        closure(lock(channels=[channel(tmp_path / "site")]), tmp_path / "mirror")


def test_a_channel_may_lack_noarch_but_nothing_else(tmp_path: Path) -> None:
    address = channel(tmp_path / "a")
    assert list(read_index(address + "/")) == [f"{address}/linux-64/{NAME}"]
    channel(tmp_path / "a", "noarch")
    assert list(read_index(address)) == [f"{address}/linux-64/{NAME}", f"{address}/noarch/{NAME}"]
    (tmp_path / "a/noarch/repodata.json").write_text("<html>")
    with pytest.raises(StackError, match=r"noarch/repodata\.json: Expecting value"):
        read_index(address)
    (tmp_path / "a/linux-64/repodata.json").write_text('{"error": "moved"}')
    with pytest.raises(StackError, match=r"linux-64/repodata\.json is no index of a conda channel"):
        read_index(address)


@pytest.mark.parametrize(
    ("record", "word"),
    [
        ({"sha256": SUM, "md5": MD5, "size": len(CONTENT)}, "its channel states the same sha256"),
        ({"md5": MD5}, "computed from one download; its channel states the same md5"),
        ({}, "computed from one download over a local path; nobody else's word for it"),
    ],
)
def test_it_is_said_whose_word_the_sum_of_a_package_is(record: dict[str, Any], word: str, tmp_path: Path) -> None:
    files = Files(tmp_path / "mirror", Upstream("", ""), lambda *_seen: None)
    url = f"{channel(tmp_path / 'site')}/linux-64/{NAME}"
    file = {"filename": NAME, "source": "url", "urls": [url], "sha256": SUM, "size": len(CONTENT), "licence": "MIT"}
    assert files.find_in_channel(url, {**record, "license": "MIT"}) == (file, word)
    assert (tmp_path / "mirror/sha256" / SUM / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"sha256": "0" * 64}, f"its bytes have sha256 {SUM}, not 0000"),
        ({"md5": "0" * 32}, f"its md5 is {MD5}, but its channel states 0000"),
        ({"size": 1}, f"its size is {len(CONTENT)}, but its channel states 1"),
    ],
)
def test_other_bytes_than_the_channel_states_are_refused(record: dict[str, Any], says: str, tmp_path: Path) -> None:
    files = Files(tmp_path / "mirror", Upstream("", ""), lambda *_seen: None)
    with pytest.raises(StackError, match=says):
        files.find_in_channel(f"{channel(tmp_path / 'site')}/linux-64/{NAME}", record)
