"""Callbacks that people know from elsewhere work beside ours, by the settings that docs/fleets.md gives."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from tests.integration.site_run import ROOT

INVENTORY = "stack_cuda90_wheel: {hosts: {gpu1: {ansible_connection: local}}}\n"


def test_junit_and_ara_record_a_run_beside_the_summary(tmp_path: Path) -> None:
    where = [sys.executable, "-m", "ara.setup.callback_plugins"]
    ara = subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "inventory.yml").write_text(INVENTORY)
    program = Path(sys.executable).with_name("ansible-playbook")
    prefix = f"--extra-vars=stack_prefix={tmp_path}/prefix"
    done = subprocess.run(
        [program, f"--inventory={tmp_path}/inventory.yml", prefix, ROOT / "playbooks/runs.yml"],
        env=os.environ
        | {
            "ANSIBLE_CONFIG": f"{ROOT}/ansible.cfg",
            "ANSIBLE_CALLBACKS_ENABLED": "junit",
            "JUNIT_OUTPUT_DIR": f"{tmp_path}/junit",
            "ANSIBLE_CALLBACK_PLUGINS": f"{ROOT}/plugins/callback:{ara}",
            "ARA_BASE_DIR": f"{tmp_path}/ara",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "No run is recorded." in done.stdout
    assert "gpu1 cuda90_wheel ok" in " ".join(done.stdout.split())
    (report,) = (tmp_path / "junit").glob("*.xml")
    suites = ElementTree.parse(report).getroot()
    assert any("Ask for the log of experiments" in case.get("name", "") for case in suites.iter("testcase"))
    assert {suite.get("failures") for suite in suites} == {"0"}
    with sqlite3.connect(tmp_path / "ara/ansible.sqlite") as database:
        assert database.execute("SELECT status FROM playbooks").fetchall() == [("completed",)]
        assert database.execute("SELECT name, ok > 5, failed FROM hosts WHERE ok > 0").fetchall() == [("gpu1", 1, 0)]
