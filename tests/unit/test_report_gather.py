"""A server tells of its runs what is new since an earlier look; both together are what one look would have told."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import report_state
from ansible.module_utils.training_log import POINTS, joined, new_state, read
from report_fleet import BEGUN, Controller, generations, inference, ladder, run, statistics, write
from run_module import run_module

from tests.signatures import catalogue

JPEG = b"\xff\xd8\xff\xe0" + bytes(300) + b"\xff\xd9"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return tmp_path / "gpu1"


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path / "state")


def ask(prefix: Path, **given: Any) -> dict[str, Any]:
    return run_module("report_info", prefix=str(prefix), server="gpu1", signatures=catalogue(), **given)


# --- Curves, joined


@pytest.mark.parametrize("seed", range(25))
def test_points_of_several_looks_are_those_of_one(seed: int, tmp_path: Path) -> None:
    some = random.Random(seed)
    log = tmp_path / "log.txt"
    lines = statistics(0, some.choice([400, 7980, 8000, 8020, 40000, 90000]), 0.02, 90000, seed).splitlines(True)
    cuts = sorted(some.choices(range(len(lines) + 1), k=some.randrange(1, 12)))
    known, series = new_state(), list[Any]()
    with log.open("a") as stream:
        for start, end in zip([0, *cuts], [*cuts, len(lines)], strict=True):
            stream.writelines(lines[start:end])
            stream.flush()
            state = json.loads(json.dumps(read(str(log), [], {**known, "series": []})))
            series, known = joined(series, known["stride"], state), state
    once = read(str(log), [])
    assert series == once["series"]
    assert {**known, "series": series} == once


def test_gathering_in_steps_gives_the_curve_of_gathering_at_once(prefix: Path, controller: Controller) -> None:
    folder = run(prefix, "e2e_1", "stopped", top=90000)
    lines = (folder / "log.txt").read_text().splitlines(keepends=True)
    for share in (0.1, 0.11, 0.5, 0.93):
        write(folder / "log.txt", "".join(lines[: int(len(lines) * share)]))
        controller.look("gpu1", prefix, time.time())
    write(folder / "log.txt", "".join(lines))
    stepwise = controller.look("gpu1", prefix, time.time())["runs"]["e2e_1"]
    once = Controller(controller.folder / "other").look("gpu1", prefix, time.time())["runs"]["e2e_1"]
    assert stepwise["series"] == once["series"]
    assert (stepwise["stride"], stepwise["log"]) == (once["stride"], once["log"])
    assert POINTS // 2 < len(once["series"]) <= POINTS


def test_a_second_look_brings_only_what_is_new(prefix: Path, controller: Controller) -> None:
    folder = run(prefix, "e2e_1", "stopped", top=90000)
    controller.look("gpu1", prefix, time.time())
    with (folder / "log.txt").open("a") as log:
        log.write(statistics(45000, 45200, 0.02, 90000))
    state = report_state.load(controller.folder, "gpu1")
    told = ask(prefix, **report_state.question(state))["runs"]["e2e_1"]
    assert told["joins"]
    assert state["runs"]["e2e_1"]["stride"] == 8
    assert [point[0] for point in told["points"]] == [45120]  # of ten, at the stride of the curve
    assert told["iteration"] == 45180


@pytest.mark.parametrize("anew", ["started again", "shorter", "another run"])
def test_a_log_that_began_anew_has_only_its_own_curve(anew: str, prefix: Path, controller: Controller) -> None:
    folder = run(prefix, "e2e_1", "stopped", seed=1, top=2000)
    controller.look("gpu1", prefix, time.time())
    if anew == "started again":
        with (folder / "log.txt").open("a") as log:
            log.write(BEGUN.format(last=2000) + statistics(500, 600, 0.02, 2000))
    elif anew == "shorter":
        write(folder / "log.txt", statistics(500, 600, 0.02, 2000))
    else:
        run(prefix, "e2e_1", "finished", seed=2, top=2000)
        write(folder / "log.txt", statistics(0, 1500, 0.02, 2000)[:-1] + "\n" + statistics(1500, 1600, 0.02, 2000))
    series = controller.look("gpu1", prefix, time.time())["runs"]["e2e_1"]["series"]
    expected = list(range(0, 1600, 20)) if anew == "another run" else list(range(500, 600, 20))
    assert [point[0] for point in series] == expected


@pytest.mark.parametrize("broken", [{"offset": "x"}, {"offset": -5}, {"seen": 7}, {"stride": 0}, {"last": []}, []])
def test_a_broken_state_of_a_log_is_as_good_as_none(broken: Any, prefix: Path) -> None:
    run(prefix, "e2e_1", "finished", top=2000)
    good = ask(prefix)["runs"]["e2e_1"]
    log = {**good["log"], **broken} if isinstance(broken, dict) else broken
    told = ask(prefix, known={"e2e_1": {"run": good["run"], "log": log}})["runs"]["e2e_1"]
    assert (told["points"], told["joins"]) == (good["points"], False) or told["joins"]


# --- What a server tells


def test_a_server_tells_of_itself_and_of_what_is_installed(prefix: Path) -> None:
    generations(prefix, 3)
    ladder(prefix, "gpu1", failed="operator")
    told = ask(prefix)["server"]
    assert (told["stack"], told["current"], [found["number"] for found in told["generations"]]) == (
        "cuda90_wheel",
        3,
        [3, 2, 1],
    )
    assert told["generations"][0]["installs"]["caffe2"] == "1.0.1-2382f10f4596"
    rungs = {rung["rung"]: rung for rung in told["ladder"]["rungs"]}
    assert (rungs["files"]["status"], rungs["operator"]["status"]) == ("passed", "failed")
    assert "compute capability" in rungs["operator"]["failed"][0]["remedy"]
    assert 0 < told["disk"]["free"] <= told["disk"]["total"]


def test_an_empty_prefix_is_told_of_and_nothing_is_made_there(prefix: Path) -> None:
    told = ask(prefix)
    assert (told["runs"], told["past"], told["server"]["generations"]) == ({}, [], [])
    assert not prefix.exists()


def test_looking_changes_nothing(prefix: Path) -> None:
    generations(prefix)
    run(prefix, "e2e_1")
    run(prefix, "e2e_2", "failed")
    before = {path: path.lstat().st_mtime_ns for path in prefix.rglob("*")}
    ask(prefix)
    assert {path: path.lstat().st_mtime_ns for path in prefix.rglob("*")} == before


def test_a_run_is_told_of_with_diagnosis_and_results(prefix: Path) -> None:
    run(prefix, "good", seed=1)
    run(prefix, "wild", "failed", seed=2)
    runs = ask(prefix)["runs"]
    assert runs["good"]["state"] == "finished"
    assert runs["good"]["results"]["coco_2014_minival"]["box"]["AP"] == 0.378
    (found,) = [found for found in runs["wild"]["findings"] if found["id"] == "loss_nan"]
    assert found["line"] > 0 and "NaN" in found["text"] and "Scale the schedule" in found["remedy"]


def test_pictures_come_once(prefix: Path, controller: Controller) -> None:
    folder = inference(prefix, "photos", [(f"{number}.jpg", JPEG) for number in range(9)])
    pictures = controller.look("gpu1", prefix, time.time())["runs"]["photos"]["pictures"]
    assert [picture["image"] for picture in pictures] == [f"{number}.jpg" for number in range(4)]  # most detections
    question = report_state.question(report_state.load(controller.folder, "gpu1"))
    again = ask(prefix, **question)["runs"]["photos"]["pictures"]
    assert not any("data" in picture for picture in again)
    assert controller.look("gpu1", prefix, time.time())["runs"]["photos"]["pictures"] == pictures
    (folder / "pictures/0.jpg.small.jpg").write_bytes(JPEG + b"more")
    again = ask(prefix, **question)["runs"]["photos"]["pictures"]
    assert ["data" in picture for picture in again] == [True, False, False, False]


def test_only_small_jpeg_files_of_the_run_itself_are_pictures(prefix: Path) -> None:
    folder = inference(prefix, "photos", [("good.jpg", JPEG), ("large.jpg", JPEG + bytes(2**17)), ("text.jpg", b"#!/")])
    secret = prefix.parent / "secret"
    secret.write_bytes(JPEG)
    (folder / "pictures/link.jpg").symlink_to(secret)
    results = json.loads((folder / "results.json").read_text())
    results["images"] += [{"image": "a", "small": "link.jpg"}, {"image": "b", "small": "../../../../secret"}, 7, {}]
    write(folder / "results.json", results)
    pictures = ask(prefix)["runs"]["photos"]["pictures"]
    assert [picture["image"] for picture in pictures] == ["good.jpg"]


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "{{ lookup('pipe', 'id') }}",
    "a\x1b[31m\u202eb",
    "</script>",
    "\udcff\udcfe",
]


def test_hostile_names_and_files_are_told_of_as_text(prefix: Path) -> None:
    for place, name in enumerate(HOSTILE):
        folder = run(prefix, name.replace("/", "\u2215"), "failed", seed=place, top=500)
        with (folder / "log.txt").open("ab") as log:
            log.write(b"Error: </script><script>alert(1)</script> {{ 7 * 7 }} \x00\x1b[2J" + b"x" * 2**20 + b"\n")
    for place, text in enumerate(["[" * 10**5, "7", '"x"', '{"differences": 5, "run": {}}', '{"config": "\\ud800"}']):
        folder = run(prefix, f"broken{place}", "died", top=100)
        write(folder / "experiment.json", text)
        write(folder / "verdict.json", '{"rungs": [1, {"rung": {}}], "status": []}')
        write(folder / "results.json", '{"images": {"a": 1}}')
    run(prefix, "long", top=100, config="c" * 2**18, differences=["d" * 10**4] * 50)
    run(prefix, "huge", top=100, config="c" * 2**21)
    told = ask(prefix)
    assert len(told["runs"]) == len(HOSTILE) + 7
    assert "(262144 characters)" in told["runs"]["long"]["facts"]["config"]
    assert len(json.dumps(told["runs"])) < 2**18


def test_a_prefix_that_is_no_full_path_is_refused(tmp_path: Path) -> None:
    told = run_module("report_info", prefix="$NOWHERE_AT_ALL/prefix")
    assert told["failed"]
    assert "give a full path" in told["msg"]
