"""Every run leaves a record of what it was made of and what became of it, whatever happens to it and its folder."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from ansible.module_utils import experiment_log
from ansible.module_utils.experiment_log import gather
from ansible.module_utils.run_table import as_csv, as_json, comparison, listed
from run_module import Running, run_module
from test_experiment_runs import SMI, arguments, ended, start, state, stop, until

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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix with a run that is finished and recorded, and whose folder is gone, and one that failed."""
    prefix = tmp_path_factory.mktemp("made")
    ended(prefix, "exit 0\n")
    ended(prefix, "exit 3\n", "other")
    records(prefix)
    shutil.rmtree(prefix / "runs/e2e_1")
    return prefix


def spoilt(made: Path, prefix: Path, end: str = "") -> Path:
    """A copy of the first run's record, or its end's."""
    shutil.copytree(made, prefix)
    (run,) = [record["run"] for record in records(prefix) if record["name"] == "e2e_1"]
    (path,) = (prefix / "runs/.log").glob(f"*-{run}{end}.json")
    return path


def records(prefix: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]]
    found, left_out = gather(str(prefix), SIGNATURES, NOW)
    assert left_out == []
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


def test_who_watches_a_run_to_its_end_records_it(prefix: Path) -> None:
    ended(prefix, f"{LOG}exit 3\n")
    assert files(prefix, ".end") == []
    for check, recorded in ((True, 0), (False, 1)):
        run_module("experiment_info", check=check, prefix=str(prefix), signatures=SIGNATURES)
        assert len(files(prefix, ".end")) == recorded
    shutil.rmtree(prefix / "runs/e2e_1")
    assert [(record["state"], record["iteration"]) for record in records(prefix)] == [("failed", 40)]


def test_on_a_full_disk_a_run_is_told_and_recorded_later(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended(prefix, f"{LOG}exit 3\n")
    with monkeypatch.context() as full:
        full.setattr(experiment_log, "write_json", Mock(side_effect=OSError(28, "No space left on device")))
        (told,) = records(prefix)
    assert (told["state"], told["iteration"]) == ("failed", 40)
    assert files(prefix, ".end") == []
    assert records(prefix) == [told]
    assert len(files(prefix, ".end")) == 1


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
def test_a_spoilt_record_is_left_out_with_a_word(made: Path, prefix: Path, text: bytes, why: str, end: str) -> None:
    path = spoilt(made, prefix, end)
    path.write_bytes(text)
    found, left_out = gather(str(prefix), SIGNATURES, NOW)
    assert [record["state"] for record in found] == (["failed", "gone"] if end else ["failed"])
    assert len(left_out) == 1
    assert why.replace("no name", "no run" if end else "no name") in left_out[0]
    assert path.name in left_out[0]


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
def test_a_record_of_other_types_is_left_out(made: Path, prefix: Path, change: dict[str, Any]) -> None:
    path = spoilt(made, prefix)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    found, left_out = gather(str(prefix), SIGNATURES, NOW)
    assert [record["name"] for record in found] == ["other"]
    assert len(left_out) == 1


FULL = {
    "asked": {"gpus": 1},
    "differences": ["NUM_GPUS: 8 -> 1"],
    "schedule": {"SOLVER.BASE_LR": 0.0025},
    "datasets": {"things": "ab"},
    "installs": {"caffe2": "1.0.1-aa"},
    "detectron": {"commit": "e8"},
    "gpu_ids": [0],
    "gpus": [{"index": 0, "name": "V100"}],
    "weights": {"path": "/w", "md5": "ab"},
    "config_text": "NUM_GPUS: 1",
}
FULL_END = {
    "loss": {"first": 1.0, "last": None, "least": 0.5},
    "results": {"things": {"box": {"AP": 0.1}}},
    "findings": [{"id": "loss_nan", "title": "t", "line": 1, "text": "x"}],
    "verdict": {"status": "failed", "failed": ["disk"]},
    "images": 3,
    "seconds_per_image": 0.5,
    "iteration": 1,
    "max_iter": 2,
}


def changed(value: Any, odd: Any) -> Iterator[Any]:
    """A value with each of its parts, one at a time, replaced by an odd one, or with one added."""
    yield odd
    if isinstance(value, dict):
        for key, part in value.items():
            yield from ({**value, key: other} for other in changed(part, odd))
        yield {**value, "odd": odd}
    if isinstance(value, list):
        for index, part in enumerate(value):
            yield from ([*value[:index], other, *value[index + 1 :]] for other in changed(part, odd))


@pytest.mark.parametrize(
    "odd", [None, True, -1, 1e300, "", "\x1b[31m=1", [], [1], {}, {"a": {"b": {"c": 1}}}], ids=repr
)
def test_whatever_a_record_says_runs_are_listed_compared_and_written(made: Path, prefix: Path, odd: Any) -> None:
    start = spoilt(made, prefix)
    end = start.with_suffix(".end.json")
    texts = {start: {**json.loads(start.read_text()), **FULL}, end: {**json.loads(end.read_text()), **FULL_END}}
    for path, record in texts.items():
        path.write_text(json.dumps(record))
    assert len(records(prefix)) == 2
    told = 0
    for path, record in texts.items():
        for text in changed(record, odd):
            path.write_text(json.dumps(text))
            found, left_out = gather(str(prefix), SIGNATURES, NOW)
            assert len(found) + len(left_out) >= 2
            lines = [line for line, _colour in listed(found, 80, NOW)] + comparison([*found, found[-1]], 80, NOW)
            assert all(line.isprintable() for line in lines)
            as_csv(found, [])
            assert "NaN" not in as_json(found, []) and "Infinity" not in as_json(found, [])
            told += not left_out
        path.write_text(json.dumps(record))
    assert told  # an option that was asked for may be anything


def test_a_record_cannot_say_what_belongs_into_the_other_one_of_its_run(made: Path, prefix: Path) -> None:
    """A start that tells its own end, of any type, and an end that gives its run another name."""
    start = spoilt(made, prefix)
    end = start.with_suffix(".end.json")
    for path, change in ((start, {"loss": "x", "state": []}), (end, {"name": "../x", "started": "now"})):
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert {(record["name"], record["state"]) for record in records(prefix)} == {
        ("e2e_1", "finished"),
        ("other", "failed"),
    }


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("exit.json", '{"run": 7, "status": {}}'),
        ("verdict.json", '{"status": "passed", "rungs": [1, {"rung": []}, {"rung": "disk", "status": "failed"}]}'),
        ("results.json", '{"images": [1, {"seconds": "x"}, {"seconds": 1e999}, {"seconds": 2.0}]}'),
        ("results.json", "[" * 100000),
        ("log.txt", "json_stats: {" * 100000),
    ],
)
def test_whatever_a_run_leaves_its_end_can_be_recorded_and_read(prefix: Path, file: str, text: str) -> None:
    ended(prefix, f"{LOG}exit 0\n")
    path = prefix / "runs/e2e_1" / file
    run = json.loads((prefix / "runs/e2e_1/experiment.json").read_text())["run"]
    path.write_text(text.replace("7", json.dumps(run)))
    assert records(prefix) == records(prefix)
    assert len(files(prefix, ".end")) == 1


def test_of_an_inference_images_and_the_usual_time_of_one_are_recorded(prefix: Path) -> None:
    images = [{"image": f"{number}.jpg", "seconds": seconds} for number, seconds in enumerate([9.0, 1.0, 2.0])]
    text = json.dumps({"images": images, "threshold": 0.7})
    ended(prefix, f"echo '{text}' >runs.new; mv runs.new results.json\n", facts={"kind": "inference"})
    (record,) = records(prefix)
    assert (record["kind"], record["images"], record["seconds_per_image"]) == ("inference", 3, 2.0)


@pytest.mark.parametrize(
    ("line", "driver"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  390.12  Wed Dec 20 07:19:16 PST 2017", "390.12"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build", "580.159.04"),
        ("", ""),
    ],
)
def test_what_the_server_tells_is_recorded(
    line: str, driver: str, prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(experiment_log, "driver_line", lambda: line)
    (tmp_path / "R-50.pkl").write_bytes(b"weights")
    (prefix / "generations/3").mkdir(parents=True)
    installs = {"caffe2": f"{prefix}/opt/caffe2/1.0.1-0123456789ab"}
    (prefix / "generations/3/receipt.json").write_text(json.dumps({"installs": installs}))
    facts = {"generation": f"{prefix}/generations/3", "weights": {"path": f"{tmp_path}/R-50.pkl"}}
    start(prefix, "exit 0\n", gpus=1, facts=facts, files={"config.yaml": "NUM_GPUS: 1\n"})
    (record,) = records(prefix)
    assert (record["gpus"], record["driver"]) == ([{"index": 0, "name": "Tesla V100"}], driver)
    assert record["installs"] == {"caffe2": "1.0.1-0123456789ab"}
    assert record["weights"]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert record["config_text"] == "NUM_GPUS: 1\n"


def test_options_that_json_cannot_hold_do_not_spoil_the_record(prefix: Path) -> None:
    ended(prefix, "exit 0\n", facts={"asked": {"options": {"SOLVER.BASE_LR": float("inf")}}})
    assert records(prefix)[0]["asked"]["options"] == {"SOLVER.BASE_LR": "inf"}


def test_a_server_that_is_only_cut_off_is_not_recorded_as_dead(prefix: Path) -> None:
    start(prefix, "exec sleep 60\n")
    lease = prefix / "runs/e2e_1/running.json"
    elsewhere = {**json.loads(lease.read_text()), "server_machine": "elsewhere"}
    stop(prefix)
    shutil.rmtree(prefix / "runs/.log")
    start(prefix, "exec sleep 60\n", resume=True)
    elsewhere["run"] = json.loads((prefix / "runs/e2e_1/experiment.json").read_text())["run"]
    mine = lease.read_text()
    for hours, written in ((1, 0), (25, 1)):
        lease.write_text(json.dumps(elsewhere))
        os.utime(lease, (time.time() - 3600 * hours,) * 2)
        assert [record["state"] for record in records(prefix)] == ["died"]
        assert len(files(prefix, ".end")) == written
    lease.write_text(mine)
    stop(prefix)


def test_runs_from_before_the_log_are_told_from_their_folders(prefix: Path) -> None:
    ended(prefix, f"{LOG}exit 3\n", facts={"rehearsal": True, "stack": "cuda90"})
    shutil.rmtree(prefix / "runs/.log")
    (record,) = records(prefix)
    assert (record["name"], record["kind"], record["state"], record["stack"]) == (
        "e2e_1",
        "rehearsal",
        "failed",
        "cuda90",
    )
    assert not (prefix / "runs/.log").exists()


def test_servers_that_share_a_home_keep_one_log(prefix: Path) -> None:
    ended(prefix, f"{LOG}exit 0\n")
    gatherers = [Running("run_log", prefix=str(prefix), signatures=SIGNATURES) for _ in range(8)]
    found = [gatherer.result()["records"] for gatherer in gatherers]
    assert found == [found[0]] * 8
    assert len(os.listdir(prefix / "runs/.log")) == 2


def test_of_two_that_record_an_end_at_once_the_first_has_done_it(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended(prefix, "exit 0\n")
    before = experiment_log._read(str(prefix))
    records(prefix)
    (end,) = (prefix / "runs/.log").glob("*.end.json")
    written = end.read_bytes()
    (prefix / "runs/e2e_1/exit.json").unlink()
    monkeypatch.setattr(experiment_log, "_read", lambda _prefix: before)
    assert records(prefix)[0]["state"] == "died"
    assert end.read_bytes() == written


def test_a_start_that_is_killed_at_any_step_loses_no_record(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills the module at its first rename or link, its second, and so on; each time the next start goes on."""
    ended(prefix, f"{LOG}exit 3\n")
    first = json.loads((prefix / "runs/.log" / files(prefix)[0]).read_text())["run"]
    killed, parent = 0, os.getpid()

    def deadly(step: Callable[..., None], steps: Iterator[int]) -> Callable[..., None]:
        def stepped(*arguments: Any) -> None:
            if os.getpid() != parent and next(steps) == killed:
                os.kill(os.getpid(), signal.SIGKILL)
            step(*arguments)

        return stepped

    while True:
        with monkeypatch.context() as patched:
            steps = itertools.count()
            for name in ("link", "replace", "rename", "unlink"):
                patched.setattr(os, name, deadly(getattr(os, name), steps))
            running = Running("experiment", **arguments(prefix, "exit 0\n", replace=True, signatures=SIGNATURES))
            until(running.ended)
        until(lambda: all(record["state"] != "running" for record in records(prefix)))
        (old,) = [record for record in records(prefix) if record["run"] == first]
        assert (old["state"], old["iteration"]) == ("failed", 40)
        if running.status() != -signal.SIGKILL:
            break
        killed += 1
    assert killed > 10
    assert records(prefix)[0]["state"] == "finished"


def test_what_killed_runs_left_is_removed_after_a_day_and_nothing_else(made: Path, prefix: Path) -> None:
    draft = spoilt(made, prefix)
    drafts = [draft.with_name(f"{draft.name}.{name}") for name in ("0a1b2c", "0a1b2c.3d4e5f.new", "notes", "00")]
    for path in drafts:
        path.write_text("half")
        os.utime(path, (NOW - 1e5, NOW - 1e5))
    os.utime(drafts[3], (NOW - 100, NOW - 100))
    records(prefix)
    assert [path.exists() for path in drafts] == [False, False, True, True]


def test_who_gathers_in_check_mode_writes_nothing(prefix: Path) -> None:
    ended(prefix, "exit 0\n")
    found = run_module("run_log", check=True, prefix=str(prefix))["records"]
    assert [record["state"] for record in found] == ["finished"]
    assert files(prefix, ".end") == []


def test_a_prefix_without_runs_has_no_records(prefix: Path) -> None:
    assert gather(str(prefix), SIGNATURES, NOW) == ([], [])
    assert experiment_log.records(str(prefix), SIGNATURES, NOW) == []
