"""The page about a fleet shows what is known, whatever servers and files say, in one file of bounded size."""

from __future__ import annotations

import json
import random
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from action_plugin import Action
from ansible.errors import AnsibleConnectionFailure
from ansible.module_utils import report_page, report_state
from ansible.module_utils.report_state import file_of, load, plain, save, unanswered
from report_fleet import Controller, generations, inference, ladder, run, write

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "files/report"
NOW = 1764090000.0
HOSTILE = "<img src=x onerror=alert(1)>\"'`{{ 7 * 7 }}{% raw %}</script>\u202e\x1b[2J\ud800\x00"
VOID = {"meta", "link", "img", "input"}
PLOTLY = report_page.plotly()


class Elements(HTMLParser):
    """A page's elements and texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.within: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.within.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.within and self.within[-1] not in ("script", "style"):
            self.text += data


@pytest.fixture(autouse=True)
def small_plotly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packing the real one takes longer than all else."""
    monkeypatch.setattr(report_page, "plotly", lambda: PLOTLY[:1000])


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is kept of a server with a few runs, as text."""
    top = tmp_path_factory.mktemp("servers")
    prefix = top / "gpu1"
    generations(prefix)
    ladder(prefix, "gpu1", failed="operator")
    run(prefix, "good", seed=1, top=4000)
    run(prefix, "wild", "failed", seed=2, top=4000)
    inference(prefix, "photos", [("a.jpg", b"\xff\xd8\xff" + bytes(100))], seed=3)
    Controller(top / "state").look("gpu1", prefix, NOW)
    return str(file_of(top / "state", "gpu1").read_text())


@pytest.fixture
def folder(told: str, tmp_path: Path) -> Path:
    """The folder of what is known."""
    write(file_of(tmp_path / "state", "gpu1"), told)
    return tmp_path / "state"


@pytest.fixture
def state(folder: Path) -> dict[str, Any]:
    """What is known of the server."""
    known: dict[str, Any] = load(folder, "gpu1")
    return known


def shown(*states: dict[str, Any], asked: tuple[str, ...] = ("gpu1",), now: float = NOW) -> Elements:
    return Elements(report_page.page(report_page.view(states, asked, now), FILES, now, "abc"))


# --- What is known of a server


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "7",
        "[" * 10**5,
        '{"schema": 1}',
        '{"schema": 2, "host": "gpu1"}',
        '{"schema": 1, "host": "gpu2"}',
    ],
)
def test_a_broken_file_is_as_good_as_none(content: str, tmp_path: Path) -> None:
    file_of(tmp_path, "gpu1").write_text(content)
    assert load(tmp_path, "gpu1") == report_state.new("gpu1")


def test_what_is_kept_comes_back(folder: Path, state: dict[str, Any]) -> None:
    assert len(state["runs"]) == 3
    save(folder, state)
    assert load(folder, "gpu1") == state
    assert [path.name for path in folder.iterdir()] == ["gpu1.json"]


@pytest.mark.parametrize("host", ["../../etc/passwd", "", ".", "-x", "a/b", "\udcff", "x" * 300, HOSTILE])
def test_a_servers_file_lies_in_its_folder_whatever_its_name(host: str, tmp_path: Path) -> None:
    path = file_of(tmp_path, host)
    assert path.parent == tmp_path and re.fullmatch(r"host-[0-9a-f]{16}\.json", path.name)
    save(tmp_path, report_state.new(host) | {"stack": "mine"})
    assert load(tmp_path, host)["stack"] == "mine"


def test_a_server_that_does_not_answer_keeps_its_last_state_and_since_when() -> None:
    known = {**report_state.new("gpu1"), "answered": NOW, "runs": {"a": {"state": "running"}}}
    once = unanswered(known, "no route", NOW + 60)
    twice = unanswered(once, "timed out", NOW + 120)
    assert (twice["since"], twice["problem"], twice["answered"], twice["runs"]) == (
        NOW + 60,
        "timed out",
        NOW,
        known["runs"],
    )
    back = report_state.answered(twice, {"server": {}, "runs": {}}, NOW + 180)
    assert (back["since"], back["problem"], back["answered"]) == (0.0, "", NOW + 180)
    page = shown(twice, now=NOW + 7200)
    assert "has not answered for 1 h 59 min" in page.text and "2 h 0 min ago" in page.text
    assert "running when last seen" in " ".join(page.text.split())


@pytest.mark.parametrize(
    ("said", "is_shown"),
    [
        ("a\x00b\x1b[1mc", "a\ufffdb\ufffd[1mc"),
        ("\u202eevil\u2066", "\ufffdevil\ufffd"),
        ("lone \ud800", "lone \ufffd"),
        ("gr\u00fc\u00df \u65e5\u672c", "gr\u00fc\u00df \u65e5\u672c"),
        (float("nan"), None),
        (10**20, None),
        ({"\u200b": [1, {"a": object()}]}, {"\ufffd": [1, {"a": None}]}),
    ],
)
def test_texts_are_made_of_characters_that_are_shown(said: Any, is_shown: Any) -> None:
    assert plain(said) == is_shown


def test_a_long_text_is_cut_and_says_so() -> None:
    cut = plain("x" * 2**20)
    assert len(cut) < 5000 and "truncated: 1048576 characters" in cut


# --- The page


def test_the_page_shows_servers_runs_curves_results_and_diagnosis(state: dict[str, Any]) -> None:
    page = shown(state)
    for words in ("gpu1", "cuda90_wheel", "7 of 8 rungs passed; failed: operator", "use a GPU of compute capability"):
        assert words in page.text, words
    for words in ("log.txt:", '"loss": NaN', "Scale the schedule", "0.3780", "SOLVER.BASE_LR", "at iteration 0"):
        assert words in page.text, words
    assert sum(tag == "polyline" for tag, _attributes in page.found) == 2
    assert [attributes["alt"] for tag, attributes in page.found if tag == "img"] == ["a.jpg, 9 detections"]


def test_every_link_of_the_page_leads_to_an_element_of_it(state: dict[str, Any]) -> None:
    page = shown(state, report_state.new("gpu2"))
    ids = [attributes["id"] for _tag, attributes in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [str(attributes["href"]) for tag, attributes in page.found if tag == "a"]
    assert links and all(link.startswith("#") and link[1:] in ids for link in links)


def test_nothing_in_the_page_names_another_file_or_host(state: dict[str, Any]) -> None:
    for tag, attributes in shown(state).found:
        for name in ("src", "href", "srcset", "action", "data"):
            assert str(attributes.get(name, "#")).startswith(("#", "data:")), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]


@pytest.mark.parametrize("name", ["page.js", "page.html.j2"])
def test_the_pages_own_script_ends_nowhere_within(name: str) -> None:
    text = (FILES / name).read_text()
    assert "</script" not in text if name.endswith("js") else text.count("<script") == text.count("</script>")


def test_hostile_texts_are_escaped_wherever_they_stand(state: dict[str, Any]) -> None:
    clean = shown(state)

    def spoiled(value: Any) -> Any:
        if isinstance(value, str):
            return HOSTILE
        if isinstance(value, list):
            return [spoiled(part) for part in value]
        return {HOSTILE + key: spoiled(part) for key, part in value.items()} if isinstance(value, dict) else value

    def keeping_keys(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: keeping_keys(part) for key, part in value.items()}
        return [keeping_keys(part) for part in value] if isinstance(value, list) else spoiled(value)

    hostile = keeping_keys(state)
    hostile["runs"] |= {HOSTILE: hostile["runs"]["wild"] | {"results": spoiled({"d": {"box": {"AP": 0.1}}})}}
    hostile["past"] = [keeping_keys({**state["runs"]["wild"], "name": "x", "run": "y"})]
    page = shown(hostile)
    assert "{{ 7 * 7 }}{% raw %}</script>\ufffd\ufffd[2J\ufffd\ufffd" in page.text
    kinds = {tag for tag, _attributes in clean.found}
    assert {tag for tag, _attributes in page.found} <= kinds | {"select"}
    assert sum(tag == "script" for tag, _attributes in page.found) == 3
    assert not [attributes for _tag, attributes in page.found if "onerror" in attributes]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_state_holds_there_is_a_page(seed: int, folder: Path, state: dict[str, Any]) -> None:
    some = random.Random(seed)
    odd: list[Any] = [None, True, -1, 10**30, 1e308, "", "x" * 5000, [], {}, [[]], {"a": {"b": [1]}}, HOSTILE, "9" * 50]

    def changed(value: Any, share: float = 0.12) -> Any:
        if some.random() < share:
            return some.choice(odd)
        if isinstance(value, dict):
            return {key: changed(part) for key, part in value.items()}
        return [changed(part) for part in value[:50]] if isinstance(value, list) else value

    write(file_of(folder, "gpu1"), {**changed(state, 0), "schema": 1, "host": "gpu1"})
    spoiled = load(folder, "gpu1")
    shown(spoiled)
    report_state.question(spoiled)
    after = report_state.answered(spoiled, changed({"server": {}, "runs": state["runs"], "past": [{}]}, 0), NOW)
    save(folder, after)
    assert load(folder, "gpu1") == after
    shown(after)


def test_a_run_that_servers_of_a_shared_home_tell_of_is_shown_once(tmp_path: Path) -> None:
    controller = Controller(tmp_path / "state")
    prefix = tmp_path / "gpu2"
    run(prefix, "shared", seed=1, top=400)
    states = [controller.look(host, prefix, NOW) for host in ("gpu1", "gpu2", "gpu3")]
    (found,) = report_page.view(states, (), NOW)["runs"]
    assert found["host"] == "gpu2"  # where it was started


def test_a_run_whose_folder_is_gone_is_told_of_by_the_log(tmp_path: Path) -> None:
    controller = Controller(tmp_path / "state")
    start = {"name": "old", "run": "0123456789abcdef", "kind": "training", "started": 1760000000.0, "host": "gpu1"}
    end = {"run": start["run"], "state": "finished", "results": {"minival": {"box": {"AP": 0.377}}}, "iteration": 9}
    write(tmp_path / "gpu1/runs/.log/20251009T085320-0123456789abcdef.json", start)
    write(tmp_path / "gpu1/runs/.log/20251009T085320-0123456789abcdef.end.json", end)
    controller.look("gpu1", tmp_path / "gpu1", NOW)
    state = controller.look("gpu1", tmp_path / "gpu1", NOW)  # which is not told again, and kept
    assert [record["name"] for record in state["past"]] == ["old"]
    page = shown(state)
    assert "folder gone" in page.text and "0.377" in page.text


def test_a_large_fleet_makes_a_page_of_bounded_size(state: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """200 runs with full curves, diagnoses and results; bench/report.py does it with real logs."""
    some = random.Random(1)
    curve = [[20 * place, some.random(), 0.02] for place in range(400)]
    for number in range(200):
        state["runs"][f"run{number}"] = {**state["runs"]["wild"], "run": f"{number:016x}", "series": curve}
    monkeypatch.setattr(report_page, "plotly", lambda: PLOTLY)
    page = report_page.page(report_page.view([state], ["gpu1"], NOW), FILES, NOW, "abc")
    assert len(page) < 5 * 10**6


def test_pictures_are_bounded_in_all(tmp_path: Path) -> None:
    controller = Controller(tmp_path / "state")
    for number in range(20):
        picture = b"\xff\xd8\xff" + random.Random(number).randbytes(90000)
        inference(tmp_path / "gpu1", f"photos{number}", [(f"{place}.jpg", picture) for place in range(4)], seed=number)
    for _look in range(5):  # an answer brings no more than its share
        state = controller.look("gpu1", tmp_path / "gpu1", NOW)
        assert controller.sent[-1] < 4 * 10**6
    assert sum(len(found["pictures"]) for found in report_page.view([state], (), NOW)["runs"]) == 34
    assert len(report_page.page(report_page.view([state], (), NOW), FILES, NOW, "abc")) < 7 * 10**6


# --- The actions


def look(tmp_path: Path, **changes: Any) -> Action:
    given = {"prefix": str(tmp_path / "gpu1"), "stack": "mine", "state": str(tmp_path / "state"), "signatures": []}
    return Action("report_info", **{**given, **changes})


def test_a_look_is_kept_and_the_next_asks_for_what_is_new(tmp_path: Path) -> None:
    run(tmp_path / "gpu1", "good", top=4000)
    action = look(tmp_path)
    assert action.run() == {"changed": False, "problem": "", "runs": 1}
    assert action.modules[0]["known"] == {}
    assert action.run()["runs"] == 1
    known = action.modules[0]["known"]["good"]
    assert known["log"]["series"] == [] and known["log"]["offset"] > 0
    assert len(json.dumps(known)) < 3000
    assert len(load(tmp_path / "state", "gpu1")["runs"]["good"]["series"]) == 200


def test_in_check_mode_nothing_is_kept(tmp_path: Path) -> None:
    assert look(tmp_path).run(check=True)["problem"] == ""
    assert not (tmp_path / "state").exists()


def test_that_a_server_was_not_reached_is_kept_and_told(tmp_path: Path) -> None:
    action = look(tmp_path)
    action.run()

    def breaks(**_given: Any) -> dict[str, Any]:
        raise AnsibleConnectionFailure("Failed to connect to the host via ssh: Connection timed out")

    action._execute_module = breaks  # type: ignore[method-assign,assignment]
    with pytest.raises(AnsibleConnectionFailure):
        action.run()
    state = load(tmp_path / "state", "gpu1")
    assert state["problem"] == "Connection timed out"
    assert 0 < state["answered"] <= state["since"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [({"stack": ""}, "is in no group stack_*"), ({"prefix": "$NOWHERE_AT_ALL"}, "give a full path")],
)
def test_a_server_that_cannot_be_looked_at_says_why(change: dict[str, str], problem: str, tmp_path: Path) -> None:
    assert problem in look(tmp_path, **change).run()["problem"]
    assert problem in load(tmp_path / "state", "gpu1")["problem"]


def test_the_page_is_written_by_rename_and_not_in_check_mode(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "path": str(tmp_path / "out/index.html"),
        "state": str(tmp_path),
        "servers": ["gpu1"],
        "asked": [],
    }
    action = Action("report_page", **given)
    assert "would be written" in action.run(check=True)["lines"][0]
    assert not (tmp_path / "out").exists()
    said = action.run()
    assert said["lines"][1:] == ["gpu1 was never asked."]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["index.html"]
    assert said["bytes"] == (tmp_path / "out/index.html").stat().st_size
    assert time.time() - (tmp_path / "out/index.html").stat().st_mtime < 3600
