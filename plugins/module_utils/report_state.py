"""What servers have told for the page of playbooks/report.yml, kept on the controller: a file for each server.

    {"schema": 1, "host": "gpu1", "stack": "cuda90_wheel", "asked": 1764088000.0, "answered": 1764088000.0,
     "since": 0.0, "problem": "", "reached": true, "server": {…}, "past": [{…}], "left_out": 0,
     "runs": {name: {…, "series": […], "stride": 4, "log": {…}}}}

asked, answered: seconds since 1970 of the last look, and of the last one that was answered; since: of the first look
that was not, with the `problem` of the last; reached: whether the server was there, and had another reason.

Runs on the controller. What a server says is data, and so is what lies in such a file: whatever it is, nothing here
raises for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.stack_installs import write_json
from ansible.module_utils.training_log import POINTS, joined

State = dict[str, Any]

SCHEMA = 1
LARGEST = 2**26  # bytes of a file
LOG = 2**17  # bytes of the state of a log that is given back to a server
RUNS = 1000
PAST = 1000
TEXT = 4000  # characters
DEEPEST = 12


def file_of(folder: Path, host: str) -> Path:
    """A server's file. Its name in the inventory may be anything; what no file is called gets a name of its own."""
    plain = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", host)
    return (
        folder / f"{host if plain else 'host-' + hashlib.sha256(host.encode(errors='replace')).hexdigest()[:16]}.json"
    )


def new(host: str) -> State:
    """Nothing is known."""
    return {
        "schema": SCHEMA,
        "host": host,
        "stack": "",
        "asked": 0.0,
        "answered": 0.0,
        "since": 0.0,
        "problem": "",
        "reached": True,
        "server": {},
        "runs": {},
        "past": [],
        "left_out": 0,
    }


def load(folder: Path, host: str) -> State:
    """What is known of a server; as if nothing was, where its file is missing or broken."""
    found: Any = None
    with contextlib.suppress(OSError, ValueError, RecursionError):
        path = file_of(folder, host)
        if path.stat().st_size <= LARGEST:
            found = json.loads(path.read_bytes())
    known = new(host)
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or found.get("host") != host:
        return known
    kept = {key: found[key] for key in known if isinstance(found.get(key), _types(known[key]))}
    known.update(kept)
    known["runs"] = {name: run for name, run in known["runs"].items() if isinstance(run, dict)}
    known["past"] = [record for record in known["past"] if isinstance(record, dict)]
    return known


def _types(value: Any) -> tuple[type, ...]:
    return (int, float) if isinstance(value, (int, float)) else (type(value),)


def save(folder: Path, state: State) -> None:
    """Keep what is known of a server, by rename. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(str(file_of(folder, state["host"])), state)


def question(state: State) -> dict[str, Any]:
    """known, past: what module report_info need not tell again."""
    known = {
        name: {"run": run.get("run"), "log": run["log"], "pictures": list(_pictures(run))}
        for name, run in state["runs"].items()
        if isinstance(run.get("log"), dict)
    }
    return {"known": known, "past": [record["run"] for record in state["past"] if isinstance(record.get("run"), str)]}


def _pictures(run: Mapping[str, Any]) -> dict[str, str]:
    """Data of a run's pictures by their ids."""
    listed = run.get("pictures")
    return {
        picture["id"]: picture["data"]
        for picture in (listed if isinstance(listed, list) else [])
        if isinstance(picture, dict) and isinstance(picture.get("id"), str) and isinstance(picture.get("data"), str)
    }


def answered(state: State, told: Mapping[str, Any], now: float) -> State:
    """What is known after a server's answer. `told`: the result of module report_info."""
    runs, before = told.get("runs"), state["runs"]
    merged = {
        str(name): _merged(before.get(name, {}), run)
        for name, run in list((runs if isinstance(runs, dict) else {}).items())[:RUNS]
        if isinstance(run, dict)
    }
    past = told.get("past")
    records = [record for record in (past if isinstance(past, list) else []) if isinstance(record, dict)]
    # A server tells a record once; one whose experiment has a folder again is told of there.
    records += [record for record in state["past"] if record.get("name") not in merged]
    left_out = told.get("left_out")
    server = told.get("server")
    return {
        **state,
        "asked": now,
        "answered": now,
        "since": 0.0,
        "problem": "",
        "reached": True,
        "server": plain(server) if isinstance(server, dict) else {},
        "runs": merged,
        "past": plain(records[:PAST]),
        "left_out": left_out if isinstance(left_out, int) else 0,
    }


def unanswered(state: State, problem: str, now: float, reached: bool = False) -> State:
    """What is known after a look that was not answered: what was known before. reached: the server was there."""
    return {**state, "asked": now, "since": state["since"] or now, "problem": plain(problem), "reached": reached}


def _merged(before: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """A run as it is now: what is told of it, with what is known of its curves and pictures already."""
    news = {key: told.get(key) for key in ("log", "points", "joins")}
    run: dict[str, Any] = plain({key: value for key, value in told.items() if key not in (*news, "pictures")})
    had, listed = _pictures(before), told.get("pictures")
    run["pictures"] = [
        {**plain({key: value for key, value in picture.items() if key != "data"}), "data": data}
        for picture in (listed if isinstance(listed, list) else [])
        if isinstance(picture, dict) and (data := _jpeg(picture.get("data", had.get(str(picture.get("id"))))))
    ]
    log = news["log"] if isinstance(news["log"], dict) else {}
    run["series"], stride, fits = points(news["points"]), log.get("stride"), not news["joins"]
    if not isinstance(stride, int) or not 0 < stride < 2**40:
        stride, log = 1, {}
    if news["joins"]:
        old, taken = points(before.get("series")), before.get("stride")
        fits = isinstance(taken, int) and taken > 0 and stride % taken == 0
        run["series"] = joined(old, taken, {"series": run["series"], "stride": stride}) if fits else run["series"]
    run["stride"] = stride
    # Without the state of its log, a run's is read from the start at the next look: where what came does not fit.
    fits = fits and len(run["series"]) <= POINTS and len(json.dumps(log)) <= LOG
    return {**run, "log": log} if log and fits else run


def points(value: Any) -> list[list[float | None]]:
    """A curve: [iteration, loss, learning rate] of each point; what is none is left out."""
    listed = value if isinstance(value, list) else []
    return [
        [finite(part) for part in point]
        for point in listed
        if isinstance(point, list) and len(point) == 3 and finite(point[0]) is not None
    ]


def finite(value: Any) -> float | None:
    """A number that a page can show; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) and abs(value) < 1e15 else None


def _jpeg(data: Any) -> str:
    """Base64 of a JPEG file, for an address in a page; "" for what is none."""
    if isinstance(data, str) and len(data) <= 2**18 and re.fullmatch(r"/9j/[A-Za-z0-9+/]*={0,2}", data):
        return data
    return ""


# Characters that would not be shown, or would change how those around them are: controls, marks of the direction of
# writing, separators of lines, what has no width, half of a pair, and what is no character.
_UNSHOWN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufdd0-\ufdef"
    r"\ufffe\uffff\ud800-\udfff\U000e0000-\U000e0fff]"
)


def plain(value: Any, depth: int = DEEPEST) -> Any:
    """A value of JSON's types as a page can show it: texts in characters that are shown, numbers that are finite."""
    if isinstance(value, str):
        cut = value if len(value) <= TEXT else f"{value[:TEXT]}… (truncated: {len(value)} characters)"
        return _UNSHOWN.sub("\ufffd", cut)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, float)):
        return finite(value)
    if not depth:
        return None
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(part, depth - 1) for key, part in value.items()}
    return [plain(part, depth - 1) for part in value] if isinstance(value, (list, tuple)) else None
