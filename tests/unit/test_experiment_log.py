"""Every run leaves a record of what it was made of and what became of it, whatever happens to it and its folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import experiment_log
from ansible.module_utils.experiment_log import gather
from test_experiment_runs import ended, start, state, stop, until

from tests.signatures import catalogue

SIGNATURES = catalogue()
NOW = 2e9
LOG = """echo 'INFO train_net.py:  95: Called with args:'
echo "'MAX_ITER': 60"
echo 'json_stats: {"iter": 0, "loss": 4.0, "lr": 0.01, "eta": "0:01:00", "time": 0.5}'
echo 'json_stats: {"iter": 20, "loss": 1.0, "lr": 0.01, "eta": "0:01:00", "time": 0.5}'
echo 'json_stats: {"iter": 40, "loss": 2.0, "lr": 0.01, "eta": "0:01:00", "time": 0.5}'
"""
TABLE = """echo 'INFO task_evaluation.py: 185: copypaste: Dataset: things_val'
echo 'INFO task_evaluation.py: 187: copypaste: Task: box'
echo 'INFO task_evaluation.py: 190: copypaste: AP,AP50'
echo 'INFO task_evaluation.py: 191: copypaste: 0.2500,0.5000'
"""


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return tmp_path / "prefix"


def records(prefix: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]]
    found, skipped = gather(str(prefix), SIGNATURES, NOW)
    assert skipped == []
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def files(prefix: Path, end: str = "") -> list[str]:
    return sorted(name for name in os.listdir(prefix / "runs/.log") if name.endswith(f"{end}.json"))


def test_a_run_is_recorded_from_its_start_on(prefix: Path) -> None:
    facts = {"kind": "training", "stack": "cuda90", "config": "/c.yaml", "differences": ["NUM_GPUS: 8 -> 1"]}
    assert "failed" not in start(prefix, f"{LOG}sleep 60\n", facts=facts)
    until(lambda: records(prefix)[0]["iteration"] == 40)
    (record,) = records(prefix)
    assert {key: record[key] for key in facts} == facts
    assert (record["name"], record["server"], record["host"]) == ("e2e_1", socket.gethostname(), "gpu1")
    assert (record["state"], record["max_iter"]) == ("running", 60)
    assert "iteration 40 of 60" in record["progress"]
    assert files(prefix, ".end") == []
    stop(prefix)


@pytest.mark.parametrize(
    ("script", "became", "status"), [("exit 0", "finished", 0), ("exit 3", "failed", 3), ("kill -9 $$", "failed", None)]
)
def test_the_end_is_recorded_once_by_who_looks_first(prefix: Path, script: str, became: str, status: int) -> None:
    ended(prefix, LOG + TABLE + script)
    (record,) = records(prefix)
    assert (record["state"], record["status"], record["iteration"]) == (became, status, 40)
    assert record["loss"] == {"first": 4.0, "last": 2.0, "least": 1.0}
    assert record["results"] == {"things_val": {"box": {"AP": 0.25, "AP50": 0.5}}}
    assert bool(record["findings"]) == (became == "failed")
    (name,) = files(prefix, ".end")
    before = (prefix / "runs/.log" / name).read_bytes()
    (prefix / "runs/e2e_1/exit.json").unlink()
    assert records(prefix) == [record]
    assert (prefix / "runs/.log" / name).read_bytes() == before


def test_a_run_that_replaces_another_loses_nothing_of_it(prefix: Path) -> None:
    ended(prefix, f"{LOG}exit 3\n")
    ended(prefix, "exit 0\n", replace=True)
    second, first = records(prefix)
    assert (first["state"], first["iteration"]) == ("failed", 40)
    assert (second["state"], second["iteration"]) == ("finished", -1)


def test_a_resumed_run_has_a_record_of_its_own_part_alone(prefix: Path) -> None:
    ended(prefix, f"{LOG}{TABLE}exit 3\n")
    ended(prefix, "echo 'Exception: Loss is NaN'; exit 1\n", resume=True)
    second, first = records(prefix)
    assert (first["state"], first["results"], first["resumed"]) == ("failed", first["results"], False)
    assert (second["state"], second["results"], second["resumed"]) == ("failed", {}, True)
    assert [found["line"] for found in second["findings"]] == [1 + LOG.count("\n") + TABLE.count("\n")]


def test_a_stopped_run_is_recorded_by_who_stops_it(prefix: Path) -> None:
    start(prefix, "exec sleep 60\n")
    stop(prefix)
    assert len(files(prefix, ".end")) == 1
    assert records(prefix)[0]["state"] == "stopped"


def test_a_run_that_was_killed_with_its_supervisor_is_recorded_as_dead(prefix: Path) -> None:
    start(prefix, "exec sleep 60\n")
    process = json.loads((prefix / "runs/e2e_1/process.json").read_text())
    os.kill(process["pid"], signal.SIGKILL)
    os.killpg(process["group"], signal.SIGKILL)
    until(lambda: state(prefix)["state"] == "died")
    assert [(record["state"], record["findings"][0]["id"]) for record in records(prefix)] == [("died", "died")]
    assert len(files(prefix, ".end")) == 1


def test_a_run_whose_folder_somebody_removed_is_told_as_gone(prefix: Path) -> None:
    ended(prefix, "exit 0\n")
    ended(prefix, "exit 0\n", "other")
    records(prefix)
    ended(prefix, "exit 0\n", "third")
    for name in ("other", "third"):
        shutil.rmtree(prefix / "runs" / name)
    assert [record["name"] for record in records(prefix)] == ["third", "other", "e2e_1"]
    assert [record["state"] for record in records(prefix)] == ["gone", "finished", "finished"]


HOSTILE = {
    "half written": (b'{"name": "e2e', "it is not JSON"),
    "empty": (b"", "it is not JSON"),
    "no object": (b"[1, 2]", "it has no name"),
    "deep": (b"[" * 100000, "it is not JSON"),
    "a megabyte": (b'{"name": "' + b"x" * 2**20 + b'"}', "it is larger than"),
    "infinite": (b'{"name": "a", "started": 1e999}', "it is not JSON"),
    "not a number": (b'{"name": "a", "started": NaN}', "it is not JSON"),
    "bytes": (b"\xff\xfe\x00", "it is not JSON"),
}


@pytest.mark.parametrize(("text", "why"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("end", ["", ".end"])
def test_a_spoilt_record_is_left_out_with_a_word(prefix: Path, text: bytes, why: str, end: str) -> None:
    ended(prefix, "exit 0\n")
    ended(prefix, "exit 0\n", "other")
    records(prefix)
    spoilt = next(name for name in files(prefix, end) if end or ".end" not in name)
    (prefix / "runs/.log" / spoilt).write_bytes(text)
    found, skipped = gather(str(prefix), SIGNATURES, NOW)
    assert [record["state"] for record in found] == ["finished"] * (2 if end else 1)
    assert len(skipped) == 1
    assert why.replace("no name", "no run" if end else "no name") in skipped[0]
    assert spoilt in skipped[0]


@pytest.mark.parametrize(
    "change",
    [
        {"name": 1},
        {"name": "../x"},
        {"run": "0123456789abcdef"},
        {"kind": "nonsense"},
        {"started": "yesterday"},
        {"started": True},
        {"started": 1e16},
        {"gpus": [{"index": "0", "name": "V100"}]},
        {"gpus": {}},
        {"datasets": {"things": []}},
        {"differences": "all"},
        {"resumed": 1},
    ],
    ids=str,
)
def test_a_record_of_other_types_is_left_out(prefix: Path, change: dict[str, Any]) -> None:
    ended(prefix, "exit 0\n")
    path = prefix / "runs/.log" / files(prefix)[0]
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    found, skipped = gather(str(prefix), SIGNATURES, NOW)
    assert found == []
    assert len(skipped) == 1


def test_who_gathers_in_check_mode_writes_nothing(prefix: Path) -> None:
    ended(prefix, "exit 0\n")
    found, _skipped = gather(str(prefix), SIGNATURES, NOW, write=False)
    assert [record["state"] for record in found] == ["finished"]
    assert files(prefix, ".end") == []


def test_a_prefix_without_runs_has_no_records(prefix: Path) -> None:
    assert gather(str(prefix), SIGNATURES, NOW) == ([], [])
    assert experiment_log.records(str(prefix), SIGNATURES, NOW) == []
