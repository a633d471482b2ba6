"""What every role's install promises."""

from __future__ import annotations

import json
import re
from typing import Any

from testinfra.host import Host


def test_of_two_servers_with_one_home_the_second_waits(log: str, scenario: str) -> None:
    waits = [
        rf"\[server{a}\] {scenario}: server{b} \(.+\) builds it in this shared prefix" for a, b in ((1, 2), (2, 1))
    ]
    assert sum(bool(re.search(wait, log)) for wait in waits) == 1


def test_nothing_in_it_can_be_written_or_has_another_name_elsewhere(host: Host, install: str) -> None:
    assert host.check_output(f"find {install} ! -type l -perm /222 -o -type f -links +1") == ""


def test_manifest_names_every_path(host: Host, install: str, receipt: dict[str, Any]) -> None:
    assert host.file(f"{install}/manifest.json").sha256sum == receipt["manifest_sha256"]
    manifest = json.loads(host.file(f"{install}/manifest.json").content_string)
    there = host.check_output(f"cd {install} && find . -mindepth 1 -printf '%P\\n'").splitlines()
    assert set(there) == {*manifest, "manifest.json", "receipt.json"}


def test_half_of_a_killed_install_is_gone(host: Host, install: str) -> None:
    assert not host.file(f"{install}/lib/half").exists


def test_nothing_is_left_over(host: Host, prefix: str) -> None:
    assert host.check_output(f"find {prefix}/var/tmp/* {prefix}/var/lease -mindepth 1") == ""


def test_receipt_says_what_shaped_it_and_where_that_came_from(receipt: dict[str, Any], scenario: str) -> None:
    assert receipt["role"] == scenario
    assert receipt["inputs"]
    assert receipt["origin"]
    assert receipt["checks"]
