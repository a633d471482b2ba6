"""Experiments run once at a time, outlive who started them, share no GPU, and tell what became of them."""

from __future__ import annotations

import json
import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import experiment_runs
from ansible.module_utils.stack_installs import StackError
from ansible.module_utils.stack_lease import holder_of, started_at
from run_module import Running, run_module

SUPERVISOR = (Path(__file__).resolve().parents[2] / "files/supervise_run.py").read_text()
FILES = {"supervise_run.py": SUPERVISOR}
WHOLE = pickle.dumps({"blobs": {"conv1_w": [0.5] * 9}, "cfg": "MODEL: {}"}, 2)
SMI = """#!/bin/sh
case "$1" in
  *gpu=*)
    echo '0, GPU-a, Tesla V100, 3'
    echo '1, GPU-b, Tesla V100, 3'
    echo '2, GPU-c, Tesla V100, 9000' ;;
  *) echo 'GPU-b, 4711' ;;
esac
"""


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return tmp_path / "prefix"


def arguments(prefix: Path, script: str, experiment: str = "e2e_1", **more: Any) -> dict[str, Any]:
    given = {"state": "started", "host": "gpu1", "environment": {"PATH": "/usr/bin:/bin"}, **more}
    files = {**FILES, **more.get("files", {}), "run.sh": script}
    return {"prefix": str(prefix), "experiment": experiment, **given, "files": files}


def start(prefix: Path, script: str, experiment: str = "e2e_1", **more: Any) -> dict[str, Any]:
    return run_module("experiment", **arguments(prefix, script, experiment, **more))


def ended(prefix: Path, script: str, experiment: str = "e2e_1", **more: Any) -> dict[str, Any]:
    """What became of a run of moments."""
    start(prefix, script, experiment, **more)
    until(lambda: state(prefix, experiment)["state"] != "running")
    return state(prefix, experiment)


def stop(prefix: Path, experiment: str = "e2e_1") -> dict[str, Any]:
    return run_module("experiment", prefix=str(prefix), experiment=experiment, state="stopped")


def state(prefix: Path, experiment: str = "e2e_1") -> dict[str, Any]:
    found = run_module("experiment_info", prefix=str(prefix))["experiments"]
    result: dict[str, Any] = found[experiment]["state"]
    return result


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that a process started here does soon."""
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def is_gone(process: str) -> bool:
    """Whether a process has ended, perhaps without its parent's notice."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_run_goes_on_when_who_started_it_has_ended(prefix: Path) -> None:
    started = start(prefix, "sleep 1; echo done\n")
    assert started["changed"]
    assert started["outcome"]["state"] == "running"
    until(lambda: state(prefix)["state"] == "finished")
    folder = prefix / "runs/e2e_1"
    assert (folder / "log.txt").read_text() == "done\n"
    assert not (folder / "running.json").exists()
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["started", "ended"]


def test_a_second_start_is_refused_and_names_the_first(prefix: Path) -> None:
    start(prefix, "sleep 60\n")
    before = (prefix / "runs/e2e_1/experiment.json").read_bytes()
    second = start(prefix, "echo another\n")
    assert second["failed"]
    assert "Experiment e2e_1 is running already: on gpu1" in second["msg"]
    assert "since 20" in second["msg"]
    assert (prefix / "runs/e2e_1/experiment.json").read_bytes() == before
    assert stop(prefix)["outcome"]["state"] == "stopped"


def test_of_two_starts_at_once_one_wins(prefix: Path) -> None:
    both = [Running("experiment", **arguments(prefix, "sleep 60\n")) for _ in range(2)]
    results = [running.result() for running in both]
    assert sorted(bool(result.get("failed")) for result in results) == [False, True]
    stop(prefix)


def test_stopping_ends_all_that_it_started_and_is_done_once(prefix: Path) -> None:
    start(prefix, "sleep 61 & echo $! >child; trap '' TERM; wait; echo TERM; exit 0\n")
    until(lambda: (prefix / "runs/e2e_1/child").exists())
    child = (prefix / "runs/e2e_1/child").read_text().strip()
    stopped = stop(prefix)
    assert stopped["changed"]
    assert stopped["outcome"]["state"] == "stopped"
    until(lambda: is_gone(child))
    assert not stop(prefix)["changed"]


@pytest.mark.parametrize(
    ("script", "expected"), [("exit 0", "finished"), ("exit 3", "failed"), ("kill -9 $$", "failed")]
)
def test_the_end_is_told(prefix: Path, script: str, expected: str) -> None:
    outcome = ended(prefix, script)
    assert outcome["state"] == expected
    assert (outcome["status"], outcome["signal"]) == {"exit 0": (0, None), "exit 3": (3, None)}.get(script, (None, 9))


def test_a_run_that_was_killed_with_its_supervisor_has_died_and_can_be_resumed(prefix: Path) -> None:
    start(prefix, "exec sleep 60\n")
    process = json.loads((prefix / "runs/e2e_1/process.json").read_text())
    os.kill(process["pid"], signal.SIGKILL)
    os.killpg(process["group"], signal.SIGKILL)
    until(lambda: state(prefix)["state"] == "died")
    again = start(prefix, "exit 0\n")
    assert "was started before, died, and has left no checkpoint" in again["msg"]
    assert "-e train_resume=true" in again["msg"]
    assert ended(prefix, "exit 0\n", resume=True)["state"] == "finished"


@pytest.mark.parametrize(
    ("files", "resume", "message"),
    [
        ({"model_iter99.pkl": WHOLE, "model_iter199.pkl": WHOLE}, False, "a checkpoint of iteration 199"),
        ({"model_iter99.pkl": WHOLE, "model_iter199.pkl": WHOLE[:-1]}, False, "a checkpoint of iteration 99"),
        ({"model_iter99.pkl": WHOLE, "model_final.pkl": WHOLE}, False, "is finished: its final model is written"),
        ({"model_iter99.pkl": WHOLE, "model_final.pkl": b""}, False, "a checkpoint of iteration 99"),
        ({}, False, "has left no checkpoint"),
    ],
)
def test_what_an_earlier_start_left_is_not_run_over(
    prefix: Path, files: dict[str, bytes], resume: bool, message: str
) -> None:
    ended(prefix, "exit 1\n")
    folder = prefix / "runs/e2e_1/train/coco_2014_train/generalized_rcnn"
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    assert message in start(prefix, "exit 0\n", resume=resume)["msg"]


@pytest.mark.parametrize("check", [False, True])
def test_a_resume_does_not_begin_from_a_checkpoint_that_was_cut_off(prefix: Path, check: bool) -> None:
    ended(prefix, "exit 1\n")
    folder = prefix / "runs/e2e_1/train/coco_2014_train/generalized_rcnn"
    folder.mkdir(parents=True)
    (folder / "model_iter99.pkl").write_bytes(WHOLE)
    (folder / "model_iter199.pkl.tmp.0f3a").write_bytes(WHOLE)  # killed before its rename
    (folder / "model_iter199.pkl").write_bytes(WHOLE[:40])
    (folder / "model_final.pkl").write_bytes(b"")
    said = run_module("experiment", check, **arguments(prefix, "exit 0\n", resume=True))
    cut = ["model_final.pkl", "model_iter199.pkl", "model_iter199.pkl.tmp.0f3a"]
    assert said["set_aside"] == [f"{folder}/{name}" for name in cut]
    left = sorted(path.name for path in folder.iterdir())
    renamed = ["cut_off_final.pkl", "cut_off_iter199.pkl", "cut_off_iter199.pkl.tmp.0f3a"]
    assert left == sorted(["model_iter99.pkl", *(cut if check else renamed)])


def test_what_was_never_started_cannot_be_resumed(prefix: Path) -> None:
    assert "it was never started here" in start(prefix, "exit 0\n", resume=True)["msg"]


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "", ".hidden", "a b"])
def test_a_name_that_is_no_folder_is_refused(prefix: Path, name: str) -> None:
    assert "cannot be the name of an experiment" in start(prefix, "exit 0\n", name)["msg"]
    assert not prefix.exists()


def test_check_mode_starts_nothing(prefix: Path) -> None:
    result = run_module("experiment", check=True, **arguments(prefix, "exit 0\n"))
    assert result["changed"]
    assert not prefix.exists()


def test_a_run_of_another_server_counts_as_alive_while_its_heart_beats(prefix: Path) -> None:
    ended(prefix, "exit 0\n")
    lease = prefix / "runs/e2e_1/running.json"
    lease.write_text(json.dumps({"run": "x", "server": "gpu7", "server_machine": "elsewhere", "since": "now"}))
    assert state(prefix)["state"] == "running"
    assert "gpu7" in start(prefix, "exit 0\n", resume=True)["msg"]
    assert not stop(prefix)["changed"], "it cannot be reached from here"
    os.utime(lease, (time.time() - 3600, time.time() - 3600))
    assert state(prefix)["state"] != "running"


def test_a_run_that_will_not_end_is_killed_after_its_grace(prefix: Path) -> None:
    files = {"supervise_run.py": SUPERVISOR.replace("GRACE = 20.0", "GRACE = 0.5")}
    given = arguments(prefix, "trap '' TERM; echo >ready; while :; do sleep 1; done\n")
    run_module("experiment", **{**given, "files": {**given["files"], **files}})
    until(lambda: (prefix / "runs/e2e_1/ready").exists())
    assert stop(prefix)["outcome"]["state"] == "stopped"


def test_a_run_is_told_to_end_before_it_is_killed(prefix: Path) -> None:
    start(prefix, "trap 'echo >told; exit 0' TERM; echo >ready; while :; do sleep 0.1; done\n")
    until(lambda: (prefix / "runs/e2e_1/ready").exists())
    stop(prefix)
    assert (prefix / "runs/e2e_1/told").exists()


def test_nothing_that_a_run_has_started_outlives_it(prefix: Path) -> None:
    ended(prefix, "sleep 62 & echo $! >child; exit 0\n")
    child = (prefix / "runs/e2e_1/child").read_text().strip()
    until(lambda: is_gone(child))


def test_a_run_shows_other_servers_that_it_lives(prefix: Path) -> None:
    given = arguments(prefix, "sleep 60\n")
    files = {"supervise_run.py": SUPERVISOR.replace("BEAT = 10.0", "BEAT = 0.1")}
    run_module("experiment", **{**given, "files": {**given["files"], **files}})
    lease = prefix / "runs/e2e_1/running.json"
    os.utime(lease, (1, 1))
    until(lambda: lease.stat().st_mtime > 1)
    stop(prefix)


def test_the_end_of_an_earlier_start_is_not_that_of_a_later_one(prefix: Path) -> None:
    ended(prefix, "exit 1\n")
    start(prefix, "exec sleep 60\n", resume=True)
    process = json.loads((prefix / "runs/e2e_1/process.json").read_text())
    os.kill(process["pid"], signal.SIGKILL)
    os.killpg(process["group"], signal.SIGKILL)
    until(lambda: state(prefix)["state"] == "died")


def test_a_start_that_was_killed_before_it_began_is_none(prefix: Path) -> None:
    ended(prefix, "exit 1\n")
    here = holder_of({"run": "killed", "host": "gpu1"})
    (prefix / "runs/e2e_1/running.json").write_text(json.dumps(here))
    assert state(prefix)["state"] == "failed"
    assert ended(prefix, "exit 0\n", resume=True)["state"] == "finished"


def test_what_a_rehearsal_left_is_replaced_by_the_next(prefix: Path) -> None:
    ended(prefix, "mkdir -p train; echo >train/model_final.pkl; exit 1\n")
    assert ended(prefix, "exit 0\n", replace=True)["state"] == "finished"
    assert not (prefix / "runs/e2e_1/train").exists()
    assert len((prefix / "runs/e2e_1/events.jsonl").read_text().splitlines()) == 2


# --- GPUs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for nvidia-smi: GPU 0 is free, 1 has a process, 2 has its memory in use."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvidia-smi").write_text(SMI)
    (tmp_path / "bin/nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")


@pytest.mark.usefixtures("smi")
def test_free_gpus_are_picked_and_no_two_runs_get_one(prefix: Path) -> None:
    both = [
        Running("experiment", **arguments(prefix, "echo $GPUS@GPUS@; sleep 60\n", name, gpus=1)) for name in ("a", "b")
    ]
    results = [running.result() for running in both]
    won = next(result for result in results if not result.get("failed"))
    lost = next(result for result in results if result.get("failed"))
    assert won["gpu_ids"] == [0]
    assert "Wanted are 1 GPUs, free 0 of 3." in lost["msg"]
    assert "GPU 0 (Tesla V100): experiment" in lost["msg"]
    assert "GPU 1 (Tesla V100): process 4711; GPU 2 (Tesla V100): 9000 MiB in use" in lost["msg"]
    for name in ("a", "b"):
        stop(prefix, name)


def test_without_a_gpu_a_start_says_so(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(prefix))
    assert "Wanted are 2 GPUs, free 0 of 0. There is none at all." in start(prefix, "exit 0\n", gpus=2)["msg"]


@pytest.mark.parametrize(
    ("count", "wanted", "message"),
    [(1, [7], "There is no GPU 7 here"), (2, [0], "names 1 GPUs and gpus is 2"), (1, [1], "GPU 1 is in use")],
)
@pytest.mark.usefixtures("smi")
def test_gpus_that_cannot_be_had_are_named(count: int, wanted: list[int], message: str) -> None:
    with pytest.raises(StackError, match=message):
        experiment_runs.choose_gpus(experiment_runs.gpus(), {}, count, wanted)


@pytest.mark.usefixtures("smi")
def test_a_start_that_is_refused_leaves_the_name_free(prefix: Path) -> None:
    assert "Wanted are 3 GPUs" in start(prefix, "exit 0\n", gpus=3)["msg"]
    assert not (prefix / "runs/e2e_1/running.json").exists()


@pytest.mark.usefixtures("smi")
def test_a_start_that_was_killed_while_it_picked_holds_up_nobody(prefix: Path) -> None:
    lease = prefix / f"var/lease/gpus-{os.uname().nodename}.json"
    lease.parent.mkdir(parents=True)
    lease.write_text(json.dumps(holder_of({"run": "killed", "pid": 1, "started": "never"})))
    assert start(prefix, "sleep 60\n", gpus=1)["gpu_ids"] == [0]
    stop(prefix)


@pytest.mark.usefixtures("smi")
def test_a_start_waits_while_another_one_picks(prefix: Path) -> None:
    lease = prefix / f"var/lease/gpus-{os.uname().nodename}.json"
    lease.parent.mkdir(parents=True)
    lease.write_text(json.dumps(holder_of({"run": "x", "pid": os.getpid(), "started": started_at(os.getpid())})))
    waiting = Running("experiment", **arguments(prefix, "sleep 60\n", gpus=1))
    until(lambda: (prefix / "runs/e2e_1/running.json").exists())
    time.sleep(0.5)
    assert not waiting.ended()
    lease.unlink()
    assert waiting.result()["gpu_ids"] == [0]
    stop(prefix)


def test_what_is_to_be_kept_outlives_the_next_start(prefix: Path) -> None:
    ended(prefix, "mkdir images && echo 1 >images/a.jpg && echo 1 >old.txt\n")
    ended(prefix, "exit 0\n", replace=True, keep=["images"])
    folder = prefix / "runs/e2e_1"
    assert (folder / "images/a.jpg").exists() and not (folder / "old.txt").exists()
    ended(prefix, "exit 0\n", replace=True)
    assert not (folder / "images").exists()


@pytest.mark.parametrize("written", [["model_iter9.pkl", "model_iter79.pkl", "model_final.pkl"]])
@pytest.mark.parametrize("turned", [False, True])
def test_the_model_of_a_training_is_its_final_one_or_else_its_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: list[str], turned: bool
) -> None:
    """In whatever order a folder lists them."""

    def walk(_top: str) -> Any:
        return [("/train", [], written[:: -1 if turned else 1])]

    monkeypatch.setattr(os, "walk", walk)
    monkeypatch.setattr(experiment_runs, "is_whole", lambda _path: True)
    assert experiment_runs.checkpoints("/run") == {"checkpoint": 79, "final": True, "model": "/train/model_final.pkl"}
    written = written[:2]
    assert experiment_runs.checkpoints("/run") == {"checkpoint": 79, "final": False, "model": "/train/model_iter79.pkl"}
