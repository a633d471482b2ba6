"""site.yml: from nothing to a verified Detectron."""

from __future__ import annotations

import json
import re

from testinfra.host import Host

ROLES = ("anaconda2", "caffe2", "cocoapi", "detectron", "nvidia_libs")


def test_run_ends_with_a_table_in_which_each_server_has_passed(log: str) -> None:
    table = log[log.index("CHECK LADDER") :]
    header = re.search(r"^server +files +linkage +import +numerics", table, re.MULTILINE)
    assert header
    for server in ("server1", "server2", "server3"):
        assert re.search(rf"^{server} +passed +passed +passed +passed", table, re.MULTILINE)


def test_each_role_is_installed_once_and_once_more_where_the_upgrade_changed_what_shapes_it(
    host: Host, prefix: str
) -> None:
    assert sorted(host.file(f"{prefix}/opt").listdir()) == sorted(ROLES)
    for role in ROLES:
        assert len(host.file(f"{prefix}/opt/{role}").listdir()) == (1 if role == "nvidia_libs" else 2)


def test_current_generation_ties_published_installs_together(host: Host, prefix: str) -> None:
    for role in ROLES:
        receipt = json.loads(host.file(f"{prefix}/current/{role}/receipt.json").content_string)
        assert receipt["role"] == role


def test_downloads_are_gone(host: Host, prefix: str) -> None:
    assert host.check_output(f"find {prefix}/var/cache {prefix}/var/tmp {prefix}/var/lease -type f") == ""
