"""Runs of all servers are one table that fits the terminal, are compared, and go into files for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from action_plugin import Action
from ansible.module_utils.run_table import CSV, as_csv, chosen, compared, comparison, listed
from ansible.module_utils.stack_installs import StackError

NOW = 1.8e9
NAN = {"id": "loss_nan", "severity": "fatal", "line": 12, "text": "Loss is NaN"}
RESULTS = {"things_val": {"box": {"AP": 0.377, "AP50": 0.5}, "mask": {"AP": 0.339}}}


def run(name: str, ago: float = 3600.0, **more: Any) -> dict[str, Any]:
    """A record of a training that has ended."""
    facts = {
        "name": name,
        "run": f"{name}{ago}",
        "kind": "training",
        "started": NOW - ago,
        "server": "n",
        "host": "gpu1",
    }
    end = {"state": "finished", "ended": NOW - ago + 600, "iteration": 89980, "max_iter": 90000, "final": True}
    return {**facts, **end, "loss": {"first": 4.0, "last": 0.31234, "least": 0.3}, **more}


def table(*records: dict[str, Any], width: int = 120) -> list[str]:
    return [line for line, _colour in listed(records, width, NOW)]


@pytest.mark.parametrize(
    ("record", "cells"),
    [
        ({"results": RESULTS}, ["train", "gpu1", "10m", "finished", "90k", "0.312", "37.7/33.9"]),
        ({"results": {"a": {"box": {"AP": -1.0}}}}, ["train", "gpu1", "10m", "finished", "90k", "0.312"]),
        (
            {"state": "failed", "final": False, "iteration": 1240, "loss": {"last": None}, "findings": [NAN]},
            ["train", "gpu1", "10m", "failed", "1240/90k", "loss_nan"],
        ),
        ({"state": "died", "findings": [{"id": "died"}]}, ["train", "gpu1", "10m", "died", "90k", "0.312"]),
        (
            {"state": "running", "final": False, "ended": None, "left": 7200.0},
            ["train", "gpu1", "60m", "running", "90k/90k", "0.312", "2 h 0 min left"],
        ),
        (
            {"kind": "rehearsal", "verdict": {"status": "passed", "failed": []}, "results": RESULTS, "iteration": 24},
            ["rehearse", "gpu1", "10m", "passed", "90k", "0.312"],
        ),
        (
            {"kind": "rehearsal", "state": "failed", "verdict": {"status": "failed", "failed": ["disk", "classes"]}},
            ["rehearse", "gpu1", "10m", "failed", "90k", "0.312", "disk, classes"],
        ),
        (
            {"kind": "inference", "images": 12, "seconds_per_image": 1.234, "loss": {}},
            ["infer", "gpu1", "10m", "finished", "12 images", "1.23 s each"],
        ),
        ({"state": "gone", "ended": None}, ["train", "gpu1", "-", "gone", "90k", "0.312", "its folder is gone"]),
        ({"host": ""}, ["train", "n", "10m", "finished", "90k", "0.312"]),
    ],
)
def test_a_run_is_a_line(record: dict[str, Any], cells: list[str]) -> None:
    header, line = table(run("a", **record))
    found = re.split(r"  +", line)
    assert re.fullmatch(r"\d\d-\d\d \d\d:\d\d", found.pop(3))
    assert [cell for cell in found[1:] if cell != "-" or "-" in cells] == cells
    assert header.startswith("name")


def test_a_start_in_another_year_shows_the_year() -> None:
    assert re.search(r" 20\d\d-\d\d-\d\d ", table(run("a", ago=4e7))[1])


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_table_fits_its_terminal(width: int) -> None:
    records = [
        run("e2e_2", results=RESULTS),
        run("e2e_2.rehearsal", kind="rehearsal", state="failed", verdict={"status": "failed", "failed": ["disk"]}),
        run("a_name_that_somebody_has_made_very_long_indeed", state="failed", final=False, findings=[NAN]),
    ]
    lines = table(*records, width=width)
    assert max(map(len, lines)) <= width
    shown = "\n".join(lines)
    assert all(word in shown for word in (*(record["name"] for record in records), "37.7/33.9", "loss_nan", "disk"))


def test_where_nothing_fits_each_name_has_its_own_line() -> None:
    header, name, rest = table(run("e2e_2"), width=40)
    assert (header.split()[0], name) == ("kind", "e2e_2")
    assert rest.startswith("  train")


def test_columns_that_say_nothing_are_left_out() -> None:
    assert table(run("a", iteration=-1, max_iter=0, loss={}))[0].split() == [
        "name",
        "kind",
        "server",
        "started",
        "took",
        "state",
    ]


HOSTILE = "\x1b[31m{{ 7*7 }}\r\n\u202e<b>"


def test_hostile_text_is_shown_as_text() -> None:
    lines = table(run("a", host=HOSTILE, state="unknown", why=HOSTILE))
    lines += comparison(
        [run("a", host=HOSTILE), run("b", config=HOSTILE, results={HOSTILE: {"box": {"AP": 1}}})], 80, NOW
    )
    assert all(line.isprintable() for line in lines)
    assert any("{{ 7*7 }}" in line for line in lines)


EVERY = [run("a", 10), run("b", 20, host="gpu2"), run("a", 30, host="gpu2"), run("a", 40)]


@pytest.mark.parametrize(
    ("said", "expected"),
    [("", [0, 1, 2, 3]), ("a", [0, 2, 3]), ("b,", [1]), (" a@gpu1 , b ", [0, 1, 3]), ("a@gpu2", [2]), ("b@n", [1])],
)
def test_runs_are_chosen_by_name_and_server(said: str, expected: list[int]) -> None:
    assert chosen(EVERY, said) == [EVERY[index] for index in expected]


@pytest.mark.parametrize(("said", "expected"), [("a,b", [0, 1]), ("a,a~1,a~2", [0, 2, 3]), ("a@gpu1~1,a@gpu2", [3, 2])])
def test_the_newest_of_a_name_is_compared_unless_an_earlier_one_is_meant(said: str, expected: list[int]) -> None:
    assert compared(EVERY, said) == [EVERY[index] for index in expected]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("c,a", "There is no run c. Known are: a, b."),
        ("a@gpu3,a", "There is no run a@gpu3. Known are: a, b."),
        ("a,b~1", "There is no run b~1: b has been started 1 time. "),
        ("a,b~x", "There is no run b~x: "),
        ("a", "Name at least two runs to compare"),
    ],
)
def test_what_cannot_be_compared_is_refused_naming_what_is_there(said: str, message: str) -> None:
    with pytest.raises(StackError, match=re.escape(message)):
        compared(EVERY, said)


def config(text: str, **more: Any) -> dict[str, Any]:
    return run("a", config_text=text, **more)


def test_a_comparison_shows_what_differs_and_what_came_out() -> None:
    one = config(
        "NUM_GPUS: 1\nSOLVER: {BASE_LR: 0.0025, STEPS: [0, 5]}\nTRAIN: {DATASETS: \"('a',)\"}\nOUTPUT_DIR: /a\n",
        results=RESULTS,
        installs={"caffe2": "1.0.1-aa", "detectron": "e8-aa"},
    )
    two = config(
        'NUM_GPUS: 2\nSOLVER: {BASE_LR: 0.005, STEPS: "(0, 5)"}\nTRAIN: {DATASETS: [a]}\nOUTPUT_DIR: /b\nVIS: true\n',
        state="failed",
        findings=[NAN],
        installs={"caffe2": "1.0.1-aa", "detectron": "e8-bb"},
    )
    lines = [re.split(r"  +", line) for line in comparison([one, two], 80, NOW)]
    assert lines[0] == ["name", "a", "a"]
    at = lines.index(["Config"])
    assert lines[at + 1 : at + 4] == [
        ["NUM_GPUS", "1", "2"],
        ["SOLVER.BASE_LR", "0.0025", "0.005"],
        ["VIS", "-", "True"],
    ]
    assert lines[at + 5 : at + 7] == [["Made of"], ["detectron", "e8-aa", "e8-bb"]]
    assert ["note", "-", "loss_nan"] in lines
    assert ["things_val box AP", "0.377", "-"] in lines


def test_runs_that_do_not_differ_are_said_not_to() -> None:
    lines = comparison([config("NUM_GPUS: 1\n"), config("NUM_GPUS: 1\n")], 80, NOW)
    assert {"Config: no difference", "Made of: no difference"} <= set(lines)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "- a\n- b\n",
        "a: &a {b: *a}\n",
        "a: &a [1, 1]\nb: [*a, *a]\n",
        "a: " + "[" * 1200,
        "x: !!python/object:os.system {}\n",
    ],
)
def test_a_config_that_cannot_be_read_is_said_to_be_so(text: str) -> None:
    lines = comparison([config(text), config("NUM_GPUS: 1\n")], 100, NOW)
    said = " ".join(" ".join(lines).split())
    assert "not recorded" in said or "cannot be read: " in said


@pytest.mark.parametrize("width", [80, 120])
def test_a_comparison_fits_its_terminal(width: int) -> None:
    long = config(f"TRAIN: {{DATASETS: {['a_dataset_of_a_long_name'] * 5}}}\n", config="/very/long/path" * 9)
    assert max(map(len, comparison([long, config("NUM_GPUS: 1\n")], width, NOW))) <= width


def rows(*records: dict[str, Any]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(as_csv(records, []))))


def test_a_spreadsheet_has_a_row_for_each_run_and_the_same_columns_always() -> None:
    assert as_csv([], []).splitlines() == [",".join(CSV)]
    (row,) = rows(run("a", results=RESULTS, schedule={"SOLVER.BASE_LR": 0.0025}, gpu_ids=[0, 1], findings=[NAN]))
    assert list(row) == list(CSV)
    expected = {"box_AP": "0.377", "mask_AP": "0.339", "seconds": "600.0", "loss_last": "0.31234", "gpu_ids": "0 1"}
    assert {key: row[key] for key in expected} == expected
    assert (row["dataset"], row["base_lr"], row["diagnosis"]) == ("things_val", "0.0025", "loss_nan")
    assert row["started"] == "2027-01-15T07:00:00Z"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", " =1", "\r\n=cmd|' /C calc'!A0"])
def test_no_cell_of_a_spreadsheet_is_a_formula(text: str) -> None:
    (row,) = rows(run("a", config=text, detectron={"path": text}, loss={"last": -1.5}))
    assert row["config"] == row["detectron_path"]
    assert row["config"].startswith("'")
    assert row["config"].isprintable()
    assert row["loss_last"] == "-1.5"


def show(servers: dict[str, Any], check: bool = False, **arguments: Any) -> tuple[dict[str, Any], list[str]]:
    action = Action("run_table", servers=servers, **arguments)
    return action.run(check), action.shown


def test_runs_of_servers_that_share_a_folder_are_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    mine, other = run("a", left=1.0), run("a", left=2.0)
    servers = {"gpu2": {"records": [other]}, "gpu1": {"records": [mine], "left_out": ["x.json was left out: half."]}}
    _result, shown = show(servers, missing=["gpu3"])
    assert len([line for line in shown if line.startswith("a ")]) == 1
    assert "gpu1: x.json was left out: half." in shown
    assert "Without the runs of gpu3, which could not be asked." in shown


def test_a_name_that_no_run_has_is_refused() -> None:
    result, _shown = show({"gpu1": {"records": EVERY}}, only="z")
    assert result["failed"]
    assert result["msg"] == "There is no run z. Known are: a, b."


def test_all_that_is_known_is_written_once(tmp_path: Path) -> None:
    path, servers = tmp_path / "runs.json", {"gpu1": {"records": EVERY}}
    assert show(servers, check=True, file=str(path))[0]["changed"]
    assert not path.exists()
    assert show(servers, file=str(path))[0]["changed"]
    assert json.loads(path.read_text()) == {"schema": 1, "missing": [], "runs": EVERY}
    assert not show(servers, file=str(path))[0]["changed"]
    assert show(servers, only="b", file=str(tmp_path / "b.csv"))[1][-1].endswith("b.csv is written: 1 run.")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.csv", "runs.json"]


@pytest.mark.parametrize(
    ("name", "message"), [("runs.xls", "give a name that ends in .json or .csv"), ("no/folder.csv", "No such file")]
)
def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path, name: str, message: str) -> None:
    result, _shown = show({"gpu1": {"records": EVERY}}, file=str(tmp_path / name))
    assert message in result["msg"]
