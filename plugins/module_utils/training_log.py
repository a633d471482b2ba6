"""What the log of a training says: how far it is, how its loss goes, and what went wrong.

A log is read on from where the last reading ended, so that watching a run of days costs little. What was read is a
`State`, a dict of JSON's types, which a module can return and take again:

    state = read(path, signatures, state)               # {} for the first time
    findings(state, signatures, now, {"state": "failed", "status": 1, "signal": None})
    progress(state, now)

`signatures` is the catalogue, files/training_signatures.yml, whose head tells its fields.

Runs on servers: Python >= 3.9, standard library only. A log is data: whatever stands in it, nothing here raises for it,
nothing grows with it, and what is shown of it has no control characters.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

State = dict[str, Any]
Finding = dict[str, Any]

CHUNK = 2**20  # bytes read at once
LONGEST = 2**16  # characters of a line that are looked at: its beginning and its end
UNFINISHED = 8 * 2**20  # bytes of a line without an end that are waited for
SHOWN = 300  # characters of a line in a finding
POINTS = 400  # of the series that is kept, an even number: older ones thinned out, evenly over the run
NEAR = 30  # lines between a signature's `after` and its pattern
TABLES = 24  # datasets, tasks of each and metrics of each that are kept of the tables of an evaluation
PERIOD = 20  # iterations between two statistics of Detectron
EXPLODES = 10.0  # times the loss at the run's start
SILENT = 10  # times that statistics may take as long as they usually do
PATIENCE = 600.0  # seconds that they may take in any case: writing a checkpoint to a slow disk, one slow evaluation
LONG_PATIENCE = 3600.0  # seconds of silence before training and while testing, which have long silent parts

_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), " ")
_STATS = "json_stats: "
_JSON = json.JSONDecoder()
_START = re.compile(r"\btrain_net\.py: *\d+: Called with args")
_RESUMED = re.compile(r"Resuming from checkpoint .{0,4000} at start iter (\d{1,12})")
_MAX_ITER = re.compile(r"'MAX_ITER': (\d{1,12})\b")
_TESTING = re.compile(r"\bim_detect: range \[\d+, \d+\] of \d+: (\d{1,12})/(\d{1,12}) .{0,100}\(eta: ([^)]{1,40})\)")
_FINAL = re.compile(r"Saving parameters and momentum to .{0,4000}model_final\.pkl")
_ERROR = re.compile(
    r"^(?:CRITICAL |ERROR |(?:[A-Za-z_][\w.]{0,100})?(?:Error|Exception|Interrupt)\b|terminate called|Killed\b)"
)
_TABLE = re.compile(r"(?:^|: )copypaste: (?:(Dataset|Task): (.{1,200})|([^:]{1,2000}))$")
_TIMEDELTA = re.compile(r"(?:(-?\d{1,9}) days?, )?(\d{1,2}):(\d{2}):(\d{2})")


def new_state() -> State:
    """Nothing read yet.

    offset: bytes read. line: lines read. phase: starting, training, testing. last: the last statistics, read_at the
    time of the log then. first: the losses at the start. least: the smallest. seen: {id: {line, text, count}} of
    signatures. results: {dataset: {task: {metric: number}}} of evaluations. attempt: how often train_net.py started.
    """
    return {
        "offset": 0,
        "line": 0,
        "skipping": False,
        "max_iter": 0,
        "log_at": 0.0,
        "attempt": 0,
        **_new_attempt(),
    }


def _new_attempt() -> State:
    """What begins anew where train_net.py was started again with the same log."""
    return {
        "phase": "starting",
        "last": {},
        "last_at": 0.0,
        "period": PERIOD,
        "first": [],
        "least": None,
        "series": [],
        "stride": 1,
        "count": 0,
        "testing": {},
        "seen": {},
        "before": {},
        "error": {},
        "results": {},
        "table": {},
    }


# --- Reading


def read(
    path: str, signatures: Sequence[Mapping[str, Any]], state: State | None = None, *, ended: bool = False
) -> State:
    """Read a log on from where `state` ended. Raises OSError where it cannot be read.

    ended: nobody writes it any more, so that a last line without an end is one too. A log that is shorter than what was
    read of it is another one, and read from its start.
    """
    state = {**new_state(), **(state or {})}
    known = [
        (signature, [re.compile(pattern) for pattern in signature.get("patterns", ())]) for signature in signatures
    ]
    afters = [(entry["id"], re.compile(entry["after"])) for entry in signatures if entry.get("after")]
    with open(path, "rb") as log:
        info = os.fstat(log.fileno())
        if info.st_size < state["offset"]:
            state = new_state()
        state["log_at"] = info.st_mtime
        log.seek(state["offset"])
        rest = b""
        while chunk := log.read(CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                state["offset"] += len(line) + 1
                _line(state, b"" if state["skipping"] else line, known, afters)
                state["skipping"] = False
            if len(rest) > UNFINISHED:
                state["offset"] += len(rest)
                state["skipping"], rest = True, b""
        if ended and rest:
            state["offset"] += len(rest)
            _line(state, rest, known, afters)
    return state


def _line(state: State, raw: bytes, known: Iterable[Any], afters: Iterable[Any]) -> None:
    """Take one line in."""
    state["line"] += 1
    if len(raw) > LONGEST:
        raw = raw[: LONGEST // 2] + b"\r" + raw[-LONGEST // 2 :]
    decoded = raw.decode("utf-8", "replace")
    # A bar of progress rewrites its line after each \r, and what is said next may stand in the same line.
    text = decoded[decoded.rstrip("\r").rfind("\r") + 1 :].translate(_CONTROL).strip()
    if not text:
        return
    at = text.find(_STATS)
    stats = _stats(text[at + len(_STATS) :]) if at >= 0 else {}
    if stats:
        _statistics(state, stats, text)
        text = text[:at]
        if not text:
            return
    if _START.search(text):
        state.update(_new_attempt(), attempt=state["attempt"] + 1)
    if _RESUMED.search(text):
        state["first"] = []
    if found := _MAX_ITER.search(text):
        state["max_iter"] = int(found[1])
    if found := _TESTING.search(text):
        state["phase"] = "testing"
        state["testing"] = {"image": int(found[1]), "images": int(found[2]), "eta": _seconds(found[3])}
    elif _FINAL.search(text):
        state["phase"] = "testing"
    if "copypaste: " in text and (found := _TABLE.search(text)):
        _table(state, found)
    if _ERROR.search(text):
        state["error"] = {"line": state["line"], "text": text[:SHOWN]}
    for signature, patterns in known:
        if any(pattern.search(text) for pattern in patterns):
            after = state["before"].get(signature["id"], -NEAR - 1) if signature.get("after") else state["line"]
            if state["line"] - after <= NEAR:
                _see(state, signature["id"], text)
    for identity, after_pattern in afters:
        if after_pattern.search(text):
            state["before"][identity] = state["line"]


def _see(state: State, identity: str, text: str) -> None:
    """Note a signature: its first line, and how often it was seen."""
    seen = state["seen"].setdefault(identity, {"line": state["line"], "text": text[:SHOWN], "count": 0})
    seen["count"] += 1


def _stats(text: str) -> dict[str, Any]:
    """The numbers of one `json_stats: {…}`; {} for what is none. Since 2018-10, Detectron quotes what has decimals."""
    try:
        found, _end = _JSON.raw_decode(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    numbers = {str(key): number for key, value in found.items() if (number := _number(value)) is not None}
    iteration = numbers.get("iter", math.nan)
    if "loss" not in numbers or not 0 <= iteration < 1e12:
        return {}
    return {**numbers, "iter": int(iteration), "eta": _seconds(found.get("eta"))}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or len(str(value)[:41]) > 40:
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _seconds(text: Any) -> float | None:
    """Seconds of a timedelta as Python prints it: 3 days, 2:05:10."""
    found = _TIMEDELTA.fullmatch(text) if isinstance(text, str) else None
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(max(0, 86400 * days + 3600 * hours + 60 * minutes + seconds))


def _statistics(state: State, stats: dict[str, Any], text: str) -> None:
    """Take the statistics of one iteration in, and judge the loss."""
    state["phase"] = "training"
    if state["last"] and stats["iter"] > state["last"]["iter"]:
        state["period"] = stats["iter"] - state["last"]["iter"]
    lost = [key for key, value in stats.items() if key.startswith("loss") and not math.isfinite(value)]
    if lost:
        _see(state, "loss_nan", text)
    elif state["first"] and stats["loss"] > EXPLODES * max(state["first"]):
        _see(state, "loss_explodes", text)
    if not lost and len(state["first"]) < 3:
        state["first"].append(stats["loss"])
    if not lost and (state["least"] is None or stats["loss"] < state["least"]):
        state["least"] = stats["loss"]
    if state["count"] % state["stride"] == 0:
        state["series"].append([stats["iter"], _json(stats["loss"]), _json(stats.get("lr", math.nan))])
        if state["count"] >= POINTS * state["stride"]:
            # Every second one, counted from this one: it is so also where earlier points are kept elsewhere.
            state["series"] = state["series"][::-2][::-1]
            state["stride"] *= 2
    state["count"] += 1
    state["last"] = {key: value if isinstance(value, int) else _json(value) for key, value in stats.items()}
    state["last_at"] = state["log_at"]


def _table(state: State, found: re.Match[str]) -> None:
    """Take a line of the tables in that Detectron prints after an evaluation: the dataset, the task, names, numbers."""
    table, key, cells = state["table"], found[1], (found[3] or "").split(",")
    if key == "Dataset":
        state["table"] = {"dataset": found[2]}
    elif key == "Task" and "dataset" in table:
        state["table"] = {"dataset": table["dataset"], "task": found[2]}
    elif "task" in table and "names" not in table:
        table["names"] = cells
    elif "names" in table:
        state["table"] = {"dataset": table["dataset"]}
        numbers = [_number(cell) for cell in cells]
        datasets = state["results"]
        tasks = datasets.get(table["dataset"], {})
        room = (table["dataset"] in datasets or len(datasets) < TABLES) and len(tasks) < TABLES
        if room and len(numbers) == len(table["names"]) <= TABLES and None not in numbers:
            tasks[table["task"]] = dict(zip(table["names"], map(_json, numbers)))
            datasets[table["dataset"]] = tasks


def joined(series: Sequence[Any], stride: int, news: State) -> list[Any]:
    """The whole series of a log that was read on from a state whose points were taken out of it and kept elsewhere.

    series, stride: as they were then. news: the state now, of the same attempt. The same as if all was read at once.
    """
    return [*series[:: news["stride"] // stride], *news["series"]]


def _json(value: float | None) -> float | None:
    """A number as JSON has it: neither NaN nor infinite."""
    return value if value is not None and math.isfinite(value) else None


# --- Judging


def findings(
    state: State, signatures: Sequence[Mapping[str, Any]], now: float, run: Mapping[str, Any] | None = None
) -> list[Finding]:
    """What went wrong, the worst first and then in the log's order.

    now: in the clock of the log's time stamp. run: what became of the process: state (running, finished, failed,
    stopped, died), status, signal. Each finding: id, title, severity (fatal, warning), line, text, count, cause,
    remedy; line 0 where it is about no line.
    """
    run = run or {}
    known = {signature["id"]: signature for signature in signatures}
    seen = dict(state["seen"])
    for identity, text in _of_the_process(state, now, run):
        seen.setdefault(identity, {"line": 0, "text": text, "count": 1})
    fatal = any(known[identity]["severity"] == "fatal" for identity in seen if identity in known)
    if run.get("state") == "failed" and not fatal:
        seen["unexplained"] = {"line": 0, "text": "", **state["error"], "count": 1}
    said = ("id", "title", "severity", "cause", "remedy")
    found = [{**{key: known[name][key] for key in said}, **where} for name, where in seen.items() if name in known]
    return sorted(found, key=lambda finding: (finding["severity"] != "fatal", finding["line"] or math.inf))


def _of_the_process(state: State, now: float, run: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """(id, what is known) of what only the clock and the process tell."""
    became = run.get("state")
    if became == "died":
        yield "died", "The process is gone, and nothing tells how it ended."
    if became == "failed":
        status = run.get("status")
        number = run.get("signal") or (status - 128 if isinstance(status, int) and 128 < status < 160 else 0)
        if number:
            last = f" Before that: {state['error']['text']}" if state["error"] else ""
            yield {9: "killed", 7: "bus_error"}.get(number, "crashed"), f"Signal {number} ended the process.{last}"
    if became == "running" and (silence := _silence(state, now)):
        yield "stalled", silence


def _silence(state: State, now: float) -> str:
    """How long a run that works has said nothing, where that is too long; else an empty string."""
    if state["phase"] == "training":
        usual = (state["last"].get("time") or 0.0) * state["period"]
        silent, allowed = now - state["last_at"], max(PATIENCE, SILENT * usual)
        if silent > allowed:
            return (
                f"The last statistics, of iteration {state['last']['iter']}, are {clock(silent)} old; they usually "
                f"come every {clock(usual)}."
            )
    elif state["log_at"] and now - state["log_at"] > LONG_PATIENCE:
        return f"Nothing has been said for {clock(now - state['log_at'])}."
    return ""


def time_left(state: State, now: float) -> float | None:
    """Seconds until the last iteration, or the last image, as the run itself told; None where it told nothing."""
    if state["phase"] == "testing":
        told, when = state["testing"].get("eta"), state["log_at"]
    else:
        told, when = state["last"].get("eta"), state["last_at"]
    return None if told is None else max(0.0, told - max(0.0, now - when))


def progress(state: State, now: float) -> str:
    """How far a run is, in a line."""
    left = time_left(state, now)
    ends = [] if left is None else [f"time left {clock(left)}"]
    if state["phase"] == "testing":
        tested = state["testing"]
        return ", ".join([f"testing image {tested['image']} of {tested['images']}" if tested else "testing", *ends])
    last = state["last"]
    if not last:
        return "starting: no iteration yet"
    words = [f"iteration {last['iter']}"]
    if state["max_iter"]:
        words[0] += f" of {state['max_iter']} ({100 * last['iter'] / max(state['max_iter'], 1):.1f} %)"
    words.append("loss not finite" if last["loss"] is None else f"loss {last['loss']:.4g}")
    for key, said in (("lr", "learning rate {:g}"), ("time", "{:.3g} s each")):
        if last.get(key) is not None:
            words.append(said.format(last[key]))
    words += ends
    if last.get("mem"):
        words.append(f"GPU memory {last['mem']:.0f} MB")
    return ", ".join(words)


def clock(seconds: float) -> str:
    """Seconds as a person reads them: 41 s, 3 min, 2 h 10 min, 4 d 3 h."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
