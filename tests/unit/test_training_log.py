"""What a training's log says is understood whatever stands in it; a signature is shown by its own lines alone."""

from __future__ import annotations

import ast
import json
import os
import random
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import training_log
from ansible.module_utils.training_log import clock, findings, new_state, progress, read, time_left

from tests.signatures import PAGE, catalogue, page

ROOT = Path(__file__).resolve().parents[2]
SIGNATURES = catalogue()
IDS = [signature["id"] for signature in SIGNATURES]
MEASURED = {"loss_nan", "loss_explodes", "stalled", "killed", "bus_error", "crashed", "died", "unexplained"}

each_signature = pytest.mark.parametrize("signature", SIGNATURES, ids=IDS)

# Both of Detectron's formats: before October 2018 numbers, since then strings.
NUMBERS = (
    'json_stats: {"accuracy_cls": 0.953125, "eta": "1 day, 2:03:04", "iter": 40, "loss": 1.250000, "loss_bbox": 0.5, '
    '"lr": 0.005000, "mb_qsize": 64, "mem": 6144, "time": 0.500000}\n'
)
STRINGS = (
    'json_stats: {"accuracy_cls": "0.953125", "eta": "1 day, 2:03:04", "iter": 40, "loss": "1.250000", '
    '"loss_bbox": "0.500000", "lr": "0.005000", "mb_qsize": 64, "mem": 6144, "time": "0.500000"}\n'
)


def stats(iteration: int, loss: object, seconds: float = 0.5, eta: str = "2:00:00") -> str:
    numbers = {"iter": iteration, "loss": loss, "lr": "0.005000", "time": seconds, "eta": eta}
    return f"json_stats: {json.dumps(numbers)}\n"


class Log:
    """A log that somebody writes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log.txt"
        self.path.touch()
        self.state: dict[str, Any] | None = None

    def write(self, text: str | bytes, at: float = 1000.0) -> Log:
        with self.path.open("ab") as log:
            log.write(text.encode() if isinstance(text, str) else text)
        os.utime(self.path, (at, at))
        return self

    def read(self, *, ended: bool = False) -> dict[str, Any]:
        """Read on, from a state that has been JSON in between, as it is between two calls of a module."""
        state = read(str(self.path), SIGNATURES, self.state, ended=ended)
        self.state = json.loads(json.dumps(state, allow_nan=False))
        assert self.state == state
        return self.state

    def ids(self, now: float = 1000.0, ended: bool = False, **run: Any) -> list[str]:
        return [found["id"] for found in findings(self.read(ended=ended), SIGNATURES, now, run)]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


# --- The catalogue


@each_signature
def test_a_signature_is_shown_by_its_example(signature: dict[str, Any], log: Log) -> None:
    given = signature.get("given", {})
    found = findings(log.write(signature["log"]).read(ended=True), SIGNATURES, 1000 + given.get("silent", 0), given)
    (shown,) = [finding for finding in found if finding["id"] == signature["id"]]
    assert {key: shown[key] for key in ("title", "cause", "remedy", "severity")} == {
        key: signature[key] for key in ("title", "cause", "remedy", "severity")
    }
    if shown["line"]:
        assert shown["text"] == signature["log"].splitlines()[shown["line"] - 1].strip()
    else:
        assert signature["id"] in MEASURED


@each_signature
def test_a_signature_is_not_shown_by_what_looks_like_it(signature: dict[str, Any], log: Log) -> None:
    given = signature.get("not_given", signature.get("given", {}))
    found = findings(log.write(signature["not"]).read(ended=True), SIGNATURES, 1000 + given.get("silent", 0), given)
    assert signature["id"] not in [finding["id"] for finding in found]


@each_signature
def test_an_example_shows_no_second_fatal_cause(signature: dict[str, Any], log: Log) -> None:
    """But for how the process ended, which says more."""
    given = signature.get("given", {})
    now = 1000 + given.get("silent", 0)
    fatal = [
        finding["id"]
        for finding in findings(log.write(signature["log"]).read(ended=True), SIGNATURES, now, given)
        if finding["severity"] == "fatal"
    ]
    assert fatal in ([signature["id"]], [])


@pytest.mark.parametrize("removed", ["patterns", "after"])
def test_each_pattern_is_needed(removed: str, log: Log) -> None:
    """Without its patterns no signature is shown, but for what is measured; without `after`, one is shown too often."""
    for signature in SIGNATURES:
        if removed not in signature:
            continue
        others = [{key: value for key, value in signature.items() if key != removed}]
        example = "log" if removed == "patterns" else "not"
        log.path.write_text(signature[example])
        state = read(str(log.path), others, ended=True)
        shown = signature["id"] in state["seen"]
        assert shown == (removed == "after" or signature["id"] == "loss_nan"), signature["id"]


def test_the_catalogue_is_well_formed() -> None:
    assert len(set(IDS)) == len(IDS)
    assert len({signature["title"] for signature in SIGNATURES}) == len(IDS)
    known = {"id", "title", "severity", "patterns", "after", "measured", "cause", "remedy", "log", "not"}
    for signature in SIGNATURES:
        assert signature.keys() <= known | {"given", "not_given"}, signature["id"]
        assert signature.keys() >= known - {"patterns", "after", "measured"}, signature["id"]
        assert signature["severity"] in ("fatal", "warning")
        assert ("measured" in signature) == (signature["id"] in MEASURED)
        assert "patterns" in signature or "measured" in signature
        for text in (signature["cause"], signature["remedy"]):
            assert text.endswith(".")


def test_what_is_measured_is_in_the_catalogue() -> None:
    """Each id that the code itself gives to a finding."""
    source = Path(training_log.__file__).read_text()
    strings = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    assert strings & set(IDS) == MEASURED


def test_the_page_is_what_the_catalogue_says() -> None:
    assert PAGE.read_text() == page(), "write it anew: .venv/bin/python tests/signatures.py"
    assert max(map(len, page().splitlines())) <= 120


# --- Statistics


@pytest.mark.parametrize("line", [NUMBERS, STRINGS], ids=["numbers", "strings"])
def test_both_formats_of_statistics_are_read(line: str, log: Log) -> None:
    state = log.write(" 'SOLVER': {'MAX_ITER': 360000,\n" + line).read()
    assert state["last"] == {
        "iter": 40,
        "accuracy_cls": 0.953125,
        "loss": 1.25,
        "loss_bbox": 0.5,
        "lr": 0.005,
        "mb_qsize": 64.0,
        "mem": 6144.0,
        "time": 0.5,
        "eta": 93784.0,
    }
    assert state["series"] == [[40, 1.25, 0.005]]
    assert progress(state, 1000) == (
        "iteration 40 of 360000 (0.0 %), loss 1.25, learning rate 0.005, 0.5 s each, time left 26 h 3 min, "
        "GPU memory 6144 MB"
    )


def test_statistics_that_share_their_line_are_read(log: Log) -> None:
    """As lines of two processes may."""
    state = log.write("WARNING x.py: 3: Mini-batch queue is empty " + NUMBERS).read()
    assert state["last"]["iter"] == 40


@pytest.mark.parametrize(
    "line",
    [
        "json_stats: ",
        "json_stats: {",
        "json_stats: []",
        'json_stats: {"iter": 40}',
        'json_stats: {"iter": "many", "loss": 1}',
        'json_stats: {"iter": -1, "loss": 1}',
        'json_stats: {"iter": NaN, "loss": 1}',
        'json_stats: {"iter": Infinity, "loss": 1}',
        'json_stats: {"iter": true, "loss": 1}',
        'json_stats: {"iter": 1, "loss": null}',
        'json_stats: {"iter": 1, "loss": [1]}',
        'json_stats: {"iter": 1, "loss": "' + "9" * 50 + '"}',
        'json_stats: {"iter": 1, "loss": ' + "9" * 5000 + "}",
        'json_stats: {"iter": 1' + "0" * 30 + ', "loss": 1}',
        'json_stats: {"a": ' + "[" * 20000,
        'json_stats: {"iter": 40, "loss": 1.25json_stats: {"iter": 60, "loss',
        "json_stats: \x00\x1b[31m\udcff",
    ],
)
def test_what_only_looks_like_statistics_is_passed_over(line: str, log: Log) -> None:
    log.write(line.encode("utf-8", "surrogateescape") + b"\n" + stats(60, 1.0).encode())
    state = log.read()
    assert state["last"]["iter"] == 60
    assert state["count"] == 1


TABLE = """INFO task_evaluation.py: 185: copypaste: Dataset: things_val
INFO task_evaluation.py: 187: copypaste: Task: box
INFO task_evaluation.py: 190: copypaste: AP,AP50
INFO task_evaluation.py: 191: copypaste: 0.2500,-1.0000
INFO task_evaluation.py: 187: copypaste: Task: mask
INFO task_evaluation.py: 190: copypaste: AP,AP50
INFO task_evaluation.py: 191: copypaste: 0.1250,nan
INFO task_evaluation.py: 185: copypaste: Dataset: other: val
INFO task_evaluation.py: 187: copypaste: Task: box
INFO task_evaluation.py: 190: copypaste: AP
INFO task_evaluation.py: 191: copypaste: 1.0000
"""
RESULTS = {
    "things_val": {"box": {"AP": 0.25, "AP50": -1.0}, "mask": {"AP": 0.125, "AP50": None}},
    "other: val": {"box": {"AP": 1.0}},
}


def test_tables_of_an_evaluation_are_read(log: Log) -> None:
    for line in TABLE.splitlines():
        log.write(f"{line}\n").read()
    assert log.read()["results"] == RESULTS


@pytest.mark.parametrize(
    "lines",
    [
        ["copypaste: AP,AP50", "copypaste: 0.1,0.2"],
        ["copypaste: Task: box", "copypaste: AP", "copypaste: 0.1"],
        ["copypaste: Dataset: a", "copypaste: AP", "copypaste: 0.1"],
        ["copypaste: Dataset: a", "copypaste: Task: box", "copypaste: AP,AP50", "copypaste: 0.1"],
        ["copypaste: Dataset: a", "copypaste: Task: box", "copypaste: AP", "copypaste: much"],
        ["copypaste: Dataset: a", "copypaste: Task: box", "copypaste: " + "AP," * 300, "copypaste: " + "1," * 300],
        ["copypaste: Dataset: " + "a" * 1000, "copypaste: Task: box", "copypaste: AP", "copypaste: 1"],
    ],
)
def test_what_only_looks_like_a_table_is_passed_over(lines: list[str], log: Log) -> None:
    assert log.write("\n".join([*lines, TABLE])).read()["results"] == RESULTS


def test_tables_without_number_are_not_kept(log: Log) -> None:
    some = ("Dataset: {0}", "Task: {0}", "{0}", "1.0", "Dataset: same", "Task: {0}", "{0}", "1.0")
    log.write("".join(f"copypaste: {line.format(number)}\n" for number in range(2000) for line in some))
    assert len(json.dumps(log.read())) < 5000


def test_a_start_of_the_same_log_begins_anew_and_is_counted(log: Log) -> None:
    begun = "INFO train_net.py: 95: Called with args:\n"
    state = log.write(f"{begun}{stats(0, 1.0)}{stats(20, 0.5)}{stats(40, 2.0)}{TABLE}").read()
    assert (state["attempt"], state["least"]) == (1, 0.5)
    state = log.write(f"{begun}{stats(0, 3.0)}").read()
    assert (state["attempt"], state["least"], state["results"]) == (2, 3.0, {})


def test_half_a_line_is_read_when_it_is_whole(log: Log) -> None:
    for part in (STRINGS[:30], STRINGS[30:100]):
        assert log.write(part).read()["last"] == {}
    assert log.write(STRINGS[100:]).read()["last"]["iter"] == 40
    assert log.state is not None
    assert log.state["line"] == 1


def test_the_last_line_of_an_ended_run_needs_no_end(log: Log) -> None:
    log.write("AssertionError: Negative areas founds")
    assert log.ids() == []
    assert log.ids(ended=True, state="failed", status=1) == ["negative_areas"]


def test_reading_in_pieces_finds_what_reading_at_once_does(tmp_path: Path) -> None:
    some = random.Random(5)
    text = "".join(
        stats(20 * number, some.choice([5.0, "nan", "1.5"]))
        + some.choice(signature["log"].splitlines())
        + "\n\u00e4\r\n"
        for number, signature in enumerate(SIGNATURES * 3)
    ).encode()
    (tmp_path / "once").mkdir()
    once = Log(tmp_path / "once").write(text).read(ended=True)
    for seed in range(20):
        some = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        pieces = Log(folder)
        cuts = sorted(some.sample(range(len(text)), 30))
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
            pieces.write(text[start:end]).read()
        assert pieces.read(ended=True) == once


def test_a_megabyte_in_one_line_is_neither_kept_nor_missed(log: Log) -> None:
    """As a bar of progress writes them, which returns to the start of its line; and then the error."""
    bar = "".join(f"  [{'=' * 60}] {n / 100}% of 97.8MB file  \r" for n in range(15000))
    assert len(bar) > 2**20
    log.write(bar + "urllib2.URLError: <urlopen error timed out>\n" + stats(20, 1.0))
    (found,) = findings(log.read(), SIGNATURES, 1000.0)
    assert (found["id"], found["text"]) == ("weights_unreachable", "urllib2.URLError: <urlopen error timed out>")
    assert log.state is not None
    assert len(json.dumps(log.state)) < 5000
    assert log.state["last"]["iter"] == 20


def test_a_line_that_does_not_end_is_not_kept_for_ever(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_log, "UNFINISHED", 2000)
    monkeypatch.setattr(training_log, "CHUNK", 1000)
    log.write("x" * 5000)
    assert log.read()["offset"] == 3000
    state = log.write("Loss is NaN\n" + stats(20, 1.0)).read()
    assert state["seen"] == {}
    assert (state["line"], state["last"]["iter"]) == (2, 20)


def test_what_is_shown_has_no_control_characters(log: Log) -> None:
    log.write("\x1b[31mAssertionError: Unknown dataset name: a\x07b\x9b\x00" + "\u00e4" * 400 + "\n")
    (found,) = findings(log.read(), SIGNATURES, 1000.0)
    assert found["text"].isprintable()
    assert len(found["text"]) == 300
    assert found["line"] == 1


def test_no_pattern_has_a_part_without_bounds() -> None:
    """A line made of beginnings of such a pattern would be looked through once for each of them."""
    constants = [value.pattern for value in vars(training_log).values() if isinstance(value, re.Pattern)]
    patterns = [pattern for signature in SIGNATURES for pattern in signature.get("patterns", ())]
    afters = [signature["after"] for signature in SIGNATURES if "after" in signature]
    assert len(constants) > 5
    assert [pattern for pattern in constants + patterns + afters if re.search(r"(\.|\\[SWD]|\])[*+]", pattern)] == []


def test_a_long_run_keeps_a_bounded_series_evenly(log: Log) -> None:
    log.write("".join(stats(20 * number, 5.0) for number in range(5000)))
    series = log.read()["series"]
    iterations = [point[0] for point in series]
    assert 200 <= len(series) <= 400
    assert len({b - a for a, b in pairwise(iterations)}) == 1
    assert iterations[0] == 0
    assert iterations[-1] > 95000


def test_a_log_that_was_begun_anew_is_read_anew(log: Log) -> None:
    log.write("Loss is NaN\n" * 50)
    assert log.ids() == ["loss_nan"]
    log.path.write_text(stats(20, 1.0))
    assert log.ids() == []


def test_a_second_start_in_the_same_log_leaves_the_first_ones_end_behind(log: Log) -> None:
    log.write(stats(20, 1.0) + "Exception: Loss is NaN\n")
    assert log.ids() == ["loss_nan"]
    log.write("INFO train_net.py:  95: Called with args:\n")
    assert log.ids() == []
    assert log.state is not None
    assert progress(log.state, 1000) == "starting: no iteration yet"
    assert log.state["line"] == 3


# --- The loss


@pytest.mark.parametrize("loss", ["nan", float("nan"), "inf", float("-inf"), "1e999"])
def test_a_loss_that_is_no_number_is_a_divergence_with_its_line(loss: object, log: Log) -> None:
    log.write(stats(0, 5.0) + "words\n" + stats(20, loss))
    (found,) = findings(log.read(), SIGNATURES, 1000.0)
    assert (found["id"], found["line"]) == ("loss_nan", 3)
    assert found["text"].startswith("json_stats: ")
    assert log.state is not None
    assert "loss not finite" in progress(log.state, 1000)


@pytest.mark.parametrize(
    ("losses", "explodes"),
    [
        ([6, 5, 4, 3, 2], False),
        ([632.7, 4.8, 50, 90], False),  # random weights: falls at once
        ([0.15, 0.9, 0.8, 1.1], False),  # resumed: the first is one iteration's, the others medians
        ([6, 9, 12, 25, 59], False),
        ([6, 80], True),
        ([6, 5, 4, 3, 2, 61], True),
        ([0.5, 0.4, 0.6, 1e30], True),
    ],
)
def test_a_loss_explodes_by_its_own_start(losses: list[float], explodes: bool, log: Log) -> None:
    log.write("".join(stats(20 * number, loss) for number, loss in enumerate(losses)))
    assert log.ids() == (["loss_explodes"] if explodes else [])


def test_a_resumed_run_is_compared_with_its_own_start(log: Log) -> None:
    resumed = "INFO train.py: 140: ========> Resuming from checkpoint /runs/a/model_iter99.pkl at start iter 100\n"
    log.write(stats(0, 0.05) + stats(20, 0.05) + resumed + stats(100, 0.9) + stats(120, 0.8))
    assert log.ids() == []


# --- The process and the clock


@pytest.mark.parametrize(
    ("seconds", "silent", "stalled"),
    [
        (0.5, 599, False),  # never within ten minutes
        (0.5, 601, True),
        (10, 1999, False),  # ten times what 20 iterations take
        (10, 2001, True),
        (400, 70000, False),
        (400, 81000, True),
        (0, 601, True),
    ],
)
def test_a_stall_is_told_by_the_runs_own_pace(seconds: float, silent: float, stalled: bool, log: Log) -> None:
    log.write(stats(0, 5.0, seconds) + stats(20, 5.0, seconds))
    assert log.ids(1000 + silent, state="running") == (["stalled"] if stalled else [])
    assert log.ids(1000 + silent, state="finished", status=0) == []


def test_words_without_statistics_do_not_hide_a_stall(log: Log) -> None:
    log.write(stats(0, 5.0) + stats(20, 5.0)).read()
    log.write("WARNING loader.py: 118: Mini-batch queue is empty\n", at=5000)
    (found,) = findings(log.read(), SIGNATURES, 5001, {"state": "running"})
    assert found["text"] == ("The last statistics, of iteration 20, are 67 min old; they usually come every 10 s.")


def test_before_training_and_while_testing_silence_is_usual(log: Log) -> None:
    log.write("INFO train.py: 173: Building model: generalized_rcnn\n")
    assert log.ids(1000 + 3599, state="running") == []
    assert log.ids(1000 + 3601, state="running") == ["stalled"]
    log.write(stats(0, 5.0))
    log.write("INFO net.py: 142: Saving parameters and momentum to /runs/a/model_final.pkl\n")
    assert log.ids(1000 + 3599, state="running") == []
    assert log.ids(1000 + 3601, state="running") == ["stalled"]


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ({"state": "failed", "status": None, "signal": 9}, ["killed"]),
        ({"state": "failed", "status": 137, "signal": None}, ["killed"]),  # a shell's word for signal 9
        ({"state": "failed", "status": 135}, ["bus_error"]),
        ({"state": "failed", "signal": 11}, ["crashed"]),
        ({"state": "failed", "status": 1}, ["unexplained"]),
        ({"state": "died"}, ["died"]),
        ({"state": "stopped", "signal": 15}, []),
        ({"state": "finished", "status": 0}, []),
        ({"state": "running"}, []),
        ({}, []),
    ],
)
def test_the_end_of_the_process_is_told(run: dict[str, Any], expected: list[str], log: Log) -> None:
    log.write(stats(20, 5.0) + "WeirdError: of my own\nINFO loader.py: 126: Stopping enqueue thread\n")
    found = findings(log.read(), SIGNATURES, 1000.0, run)
    assert [finding["id"] for finding in found] == expected
    if expected in (["unexplained"], ["crashed"]):
        assert "WeirdError: of my own" in found[0]["text"]


def test_the_fatal_comes_first_and_then_what_was_said_first(log: Log) -> None:
    log.write("Bbox eval ignored as annotations are undisclosed on test\nNCCL WARN x\nNCCL WARN y\n")
    log.write("IOError: [Errno 28] No space left on device\n")
    found = findings(log.read(), SIGNATURES, 1000.0, {"state": "failed", "signal": 9})
    assert [(finding["id"], finding["line"], finding["count"]) for finding in found] == [
        ("nccl", 2, 2),
        ("disk_full", 4, 1),
        ("killed", 0, 1),
        ("not_evaluated", 1, 1),
    ]


def test_a_signature_that_somebody_took_out_of_the_catalogue_is_not_shown(log: Log) -> None:
    state = log.write(stats(0, "nan")).read()
    assert findings(state, [], 1000.0, {"state": "failed", "status": 1}) == []


# --- Time


def test_time_left_is_what_the_run_said_less_what_has_passed(log: Log) -> None:
    state = log.write(stats(20, 5.0, eta="3 days, 2:05:10")).read()
    assert time_left(state, 1000) == 3 * 86400 + 2 * 3600 + 310
    assert time_left(state, 1060) == 3 * 86400 + 2 * 3600 + 250
    assert time_left(state, 900) == 3 * 86400 + 2 * 3600 + 310  # clocks of two machines
    assert time_left(state, 1e9) == 0


@pytest.mark.parametrize("eta", ["", "soon", "99", "1:2:3:4", "-1 day, 23:59:59", "9" * 100 + " days, 1:00:00", None])
def test_time_left_is_never_guessed(eta: Any, log: Log) -> None:
    state = log.write(stats(20, 5.0, eta=eta)).read()
    expected = 0 if eta == "-1 day, 23:59:59" else None
    assert time_left(state, 1000) == expected
    assert ("time left" in progress(state, 1000)) == (expected is not None)
    assert time_left(new_state(), 1000) is None


def test_testing_has_its_own_progress(log: Log) -> None:
    log.write(stats(20, 5.0))
    line = "INFO test_engine.py: 281: im_detect: range [1, 5000] of 5000: 11/5000 0.081s + 0.014s (eta: 0:08:00)\n"
    assert progress(log.write(line).read(), 1000) == "testing image 11 of 5000, time left 8 min"
    log.write(stats(0, 5.0))
    assert log.read()["phase"] == "training"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s"), (99, "99 s"), (100, "2 min"), (5940, "99 min"), (6000, "1 h 40 min"), (172800, "2 d 0 h")],
)
def test_durations_are_read_by_people(seconds: float, expected: str) -> None:
    assert clock(seconds) == expected
