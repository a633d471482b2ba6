"""The log of experiments: `runs/.log/`, what every run was made of and what became of it, also when its folder is gone.

    <UTC time>-<run id>.json       written when a run starts: what it is made of
    <UTC time>-<run id>.end.json   written once, by whoever looks first after the end: what became of it

Nothing is written twice and nothing is appended to, so that several servers can share the folder over NFS; each file
comes into being whole, by a hard link. Nothing has to be alive at the moment of a run's end.

Runs on servers: Python >= 3.9, standard library only. A record is data: whatever stands in one, nothing here raises.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import statistics
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible.module_utils.experiment_runs import LEASE, NAME, alive, became, checkpoints, folder_of, gpus, names
from ansible.module_utils.stack_installs import RECEIPT, StackError, read_json, sha256_of, write_json
from ansible.module_utils.stack_lease import is_here, look, new_probe, probed
from ansible.module_utils.stack_lookup import driver_line
from ansible.module_utils.training_log import findings, new_state, progress, read, time_left

Record = dict[str, Any]

FOLDER = ".log"
KINDS = ("training", "rehearsal", "inference", "evaluation")
LONGEST = 2**20  # bytes of a record, or of a file that one is made from
CONFIG = 2**18  # bytes of a config that is kept
LOST = 86400.0  # seconds without a heartbeat after which a run of another server has died for good
_FILE = re.compile(r"(\d{8}T\d{6}-([0-9a-f]{16}))(\.end)?\.json")
_DRAFT = re.compile(r"\d{8}T\d{6}-[0-9a-f]{16}(?:\.end)?\.json\.[0-9a-f.]{1,40}(?:new)?")

# What a record may hold: a type, [of a list's items], {name: of an object's values}; "*" stands for any name.
_NUMBER, _TEXT, _ANY = (int, float), str, object
_START: Mapping[str, Any] = {
    "name": _TEXT,
    "run": _TEXT,
    "kind": _TEXT,
    "started": _NUMBER,
    "since": _TEXT,
    "server": _TEXT,
    "host": _TEXT,
    "asked": {"*": _ANY},
    "config": _TEXT,
    "config_text": _TEXT,
    "differences": [_TEXT],
    "schedule": {"*": _ANY},
    "datasets": {"*": _TEXT},
    "stack": _TEXT,
    "generation": _TEXT,
    "installs": {"*": _TEXT},
    "detectron": {"*": _ANY},
    "gpu_ids": [_NUMBER],
    "gpus": [{"index": _NUMBER, "name": _TEXT}],
    "driver": _TEXT,
    "device": _TEXT,
    "weights": {"*": _TEXT},
    "resumed": bool,
    "log_offset": int,
}
_MAYBE = (int, float, type(None))
_END: Mapping[str, Any] = {
    "run": _TEXT,
    "state": _TEXT,
    "status": _MAYBE,
    "signal": _MAYBE,
    "ended": _MAYBE,
    "iteration": int,
    "max_iter": int,
    "loss": {"*": _MAYBE},
    "checkpoint": int,
    "final": bool,
    "results": {"*": {"*": {"*": _MAYBE}}},
    "findings": [{"line": int, "*": _TEXT}],
    "verdict": {"status": _TEXT, "failed": [_TEXT]},
    "images": int,
    "seconds_per_image": _MAYBE,
    "progress": _TEXT,  # of one that works, with the seconds that are left; recorded never
    "left": _MAYBE,
    "why": _TEXT,  # nothing is known
}


def _misfit(value: Any, shape: Any, where: str = "") -> str:
    """Which part of a value has another type than `shape` says; "" where all is right."""
    if isinstance(shape, Mapping):
        if not isinstance(value, dict):
            return where or "it"
        parts = ((key, part, shape.get(key, shape.get("*", object))) for key, part in value.items())
        return next(
            (bad for key, part, inner in parts if (bad := _misfit(part, inner, f"{where}.{key}".strip(".")))), ""
        )
    if isinstance(shape, list):
        if not isinstance(value, list):
            return where
        return next((bad for part in value if (bad := _misfit(part, shape[0], where))), "")
    if shape is object:
        return ""
    if isinstance(value, bool) is not (shape is bool):
        return where
    if isinstance(value, (int, float)) and abs(value) > 1e15:  # more than a time or a count is, or a person can read
        return where
    return "" if isinstance(value, shape) else where


# --- Reading


def folder(prefix: str) -> str:
    """The log's folder."""
    return os.path.join(prefix, "runs", FOLDER)


def _finite(text: str) -> float:
    """A number of JSON. Raises ValueError for NaN and infinities, which JSON does not have."""
    if not math.isfinite(number := float(text)):
        raise ValueError(text)
    return number


def _load(
    path: str, shape: Mapping[str, Any], needed: Iterable[str], other: Iterable[str], run: str
) -> tuple[Record, str]:
    """(a record without what belongs into the `other` one of its run, why it is none)."""
    try:
        with open(path, "rb") as stream:
            text = stream.read(LONGEST + 1)
        if len(text) > LONGEST:
            return {}, f"it is larger than {LONGEST} bytes"
        data = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        return {}, "it is not JSON"
    except OSError as error:
        return {}, f"it cannot be read ({error.strerror})"
    missing = [key for key in needed if not isinstance(data, dict) or key not in data]
    if missing:
        return {}, f"it has no {missing[0]}"
    if wrong := _misfit(data, shape):
        return {}, f"{wrong[:60]!r} in it has another type"
    if data["run"] != run:
        return {}, "it is that of another run"
    return {key: value for key, value in data.items() if key == "run" or key not in other}, ""


def _read(prefix: str, ended: bool = True) -> tuple[list[tuple[str, Record, Record]], list[str]]:
    """([(path without its ending, start, end or {})], a sentence for each file that was left out). ended: also of runs
    whose end is recorded."""
    top = folder(prefix)
    try:
        files = [found for name in sorted(os.listdir(top)) if (found := _FILE.fullmatch(name))]
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"{top} cannot be listed: {error.strerror}."]
    ends = {found[1] for found in files if found[3]}
    records, left_out = [], []
    for found in files:
        if found[3] or (found[1] in ends and not ended):
            continue
        path = os.path.join(top, found[1])
        end: Record = {}
        start, why = _load(f"{path}.json", _START, ("name", "run", "kind", "started"), _END, found[2])
        if not why and (not NAME.fullmatch(start["name"]) or start["kind"] not in KINDS):
            why = "its name or kind is none that a run has"
        if why:
            left_out.append(f"{path}.json was left out: {why}.")
            continue
        if found[1] in ends:
            end, why = _load(f"{path}.end.json", _END, ("run", "state"), _START, found[2])
            if why:
                left_out.append(f"{path}.end.json was left out: {why}.")
        records.append((path, start, end))
    return records, left_out


def gather(
    prefix: str, signatures: Sequence[Mapping[str, Any]], now: float, write: bool = True
) -> tuple[list[Record], list[str]]:
    """(all records, newest first, each start and end in one; a sentence for each file that was left out).

    state: finished, failed, stopped, died; running, with how far it is; gone, where the run's folder was removed before
    anybody had looked at its end. write: record ends that nobody has recorded.
    """
    found, left_out = _read(prefix)
    merged = [{**start, **(end or _look(prefix, path, start, signatures, now, write))} for path, start, end in found]
    for start in _unrecorded(prefix, {start["run"] for _path, start, _end in found}):
        merged.append({**start, **_look(prefix, "", start, signatures, now, write=False)})
    if write:
        _sweep(folder(prefix), now)
    return _newest_first(merged), left_out


def gone(prefix: str) -> list[Record]:
    """Records of experiments whose folders are gone, newest first. Reads no log."""
    there = set(names(prefix))
    found = [{**start, **(end or {"state": "gone"})} for _path, start, end in _read(prefix)[0]]
    return _newest_first([record for record in found if record["name"] not in there])


def _newest_first(found: list[Record]) -> list[Record]:
    return sorted(found, key=lambda record: (record["started"], record["run"]), reverse=True)


def _unrecorded(prefix: str, known: Collection[str]) -> Iterator[Record]:
    """Starts of runs that began before there was a log, from their folders."""
    there: list[str] = []
    with contextlib.suppress(OSError):
        there = names(prefix)
    for name in there:
        facts = _small(os.path.join(folder_of(prefix, name), "experiment.json"))
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
            if facts["run"] not in known:
                began = time.mktime(time.strptime(facts["since"], "%Y-%m-%d %H:%M:%S"))
                start = {"kind": _kind(facts), **facts, "name": name, "started": began}
                if not _misfit(start, _START) and start["kind"] in KINDS:
                    yield start


def _kind(facts: Mapping[str, Any]) -> str:
    return "rehearsal" if facts.get("rehearsal") else "training"


def records(prefix: str, signatures: Sequence[Mapping[str, Any]], now: float) -> list[Record]:
    """All records, newest first: see `gather`."""
    return gather(prefix, signatures, now)[0]


# --- Writing


def _write_once(path: str, data: Record) -> None:
    """Write a file that nobody has written yet; of several that do it at once, one is the first."""
    draft = f"{path}.{os.urandom(6).hex()}"
    write_json(draft, data)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.unlink(draft)


def _sweep(top: str, now: float) -> None:
    """Remove drafts that killed runs left."""
    with contextlib.suppress(OSError):
        for name in os.listdir(top):
            path = os.path.join(top, name)
            if _DRAFT.fullmatch(name) and now - os.lstat(path).st_mtime > LOST:
                os.unlink(path)


def record_start(prefix: str, facts: Mapping[str, Any], files: Mapping[str, str], resumed: bool, now: float) -> None:
    """Record a run that is about to start: what experiment.json says, its config, and what the server tells."""
    text = files.get("config.yaml", "")
    log = os.path.join(folder_of(prefix, facts["name"]), "log.txt")
    given = list(facts.get("gpu_ids", []))
    generation = read_json(os.path.join(facts.get("generation") or prefix, RECEIPT))
    record = {
        "kind": _kind(facts),
        **facts,
        "started": round(now, 3),
        "config_text": text if len(json.dumps(text)) <= CONFIG else "",
        "installs": {role: os.path.basename(path) for role, path in generation.get("installs", {}).items()},
        "gpus": _gpus(given),
        "driver": _driver() if given else "",
        "weights": _weights(facts.get("weights", {})),
        "resumed": resumed,
        "log_offset": os.path.getsize(log) if os.path.exists(log) else 0,
    }
    top = folder(prefix)
    os.makedirs(top, exist_ok=True)
    moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
    _write_once(os.path.join(top, f"{moment}-{facts['run']}.json"), _plain(record))


def _plain(value: Any) -> Any:
    """What JSON can hold: numbers that are not finite as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _gpus(given: Sequence[int]) -> list[dict[str, Any]]:
    """Index and name of the GPUs that a run was given."""
    if not given:
        return []
    try:
        return [{"index": gpu["index"], "name": gpu["name"]} for gpu in gpus() if gpu["index"] in given]
    except StackError:
        return []


def _driver() -> str:
    """Version of the loaded NVIDIA driver."""
    found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", driver_line())
    return found[1] if found else ""


def _weights(told: Mapping[str, Any]) -> dict[str, str]:
    """Path and checksum of the weights that a run begins with."""
    weights = {key: str(value) for key, value in told.items()}
    path = weights.get("path", "")
    if os.path.isfile(path) and not weights.keys() & {"sha256", "md5"}:
        with contextlib.suppress(OSError):
            weights["sha256"] = sha256_of(path)
    return weights


def settle(prefix: str, name: str, signatures: Sequence[Mapping[str, Any]], now: float, over: bool = False) -> None:
    """Record the ends of an experiment's runs. over: the caller has its lease, so that nothing of it works any more."""
    for path, start, _end in _read(prefix, ended=False)[0]:
        if start["name"] == name:
            _look(prefix, path, start, signatures, now, write=True, over=over)


def _look(
    prefix: str,
    path: str,
    start: Record,
    signatures: Sequence[Mapping[str, Any]],
    now: float,
    write: bool,
    over: bool = False,
) -> Record:
    """What became of a run whose end is not recorded; recorded where that is certain (`over`: it does not work)."""
    place = folder_of(prefix, start["name"])
    try:
        if read_json(os.path.join(place, "experiment.json")).get("run") != start["run"]:
            return {"state": "gone"}
        working, holder = (False, {}) if over else alive(place)
        if working and holder.get("run") == start["run"]:
            return {**_facts(place, start, {"state": "running"}, signatures, now), "state": "running"}
        end = became(place)
        record = {"run": start["run"], **_facts(place, start, end, signatures, now)}
        # A server that is cut off from the file server for long looks dead from another one, and may go on.
        if write and (end["state"] != "died" or over or not holder or working or _is_certain(place, holder)):
            with contextlib.suppress(OSError):  # the disk is full: who looks next records it
                _write_once(f"{path}.end.json", record)
        return record
    except OSError as error:  # the file server is away, or somebody removes the folder now
        return {"state": "unknown", "why": f"{place} cannot be read: {error.strerror}"}


def _is_certain(place: str, holder: Mapping[str, Any]) -> bool:
    """Whether a run that seems dead is: its server is this one, or has given no sign for a day."""
    lease = os.path.join(place, LEASE)
    if is_here(dict(holder)):
        return True
    heartbeat = look(lease)[1]
    probe = new_probe(lease)
    try:
        return bool(probed(probe) - heartbeat > LOST)
    finally:
        os.unlink(probe)


def _facts(
    place: str, start: Record, end: Mapping[str, Any], signatures: Sequence[Mapping[str, Any]], now: float
) -> Record:
    """How far a run got, what it found and what went wrong, from its folder. Raises OSError."""
    log = _read_log(os.path.join(place, "log.txt"), start.get("log_offset", 0), signatures, end["state"] != "running")
    last = log["last"]
    left = checkpoints(place)
    facts: Record = {
        **end,
        "iteration": last.get("iter", -1),
        "max_iter": log["max_iter"],
        "loss": {"first": next(iter(log["first"]), None), "last": last.get("loss"), "least": log["least"]},
        "checkpoint": left["checkpoint"],
        "final": left["final"],
        "results": log["results"],
        "findings": [
            {key: value for key, value in found.items() if key != "count"}
            for found in findings(log, signatures, now, end)
        ],
        **_verdict(_small(os.path.join(place, "verdict.json"))),
        **_pictures(_small(os.path.join(place, "results.json"))),
    }
    if end["state"] == "running":
        facts |= {"progress": progress(log, now), "left": time_left(log, now)}
    if end["state"] == "died":
        facts["ended"] = int(log["log_at"] or start["started"])  # its last sign of life
    return facts


def _read_log(path: str, offset: int, signatures: Sequence[Mapping[str, Any]], ended: bool) -> Record:
    """State of what a run said: of its log from where the run began. Line numbers are those of the file."""
    state: Record = new_state()
    with contextlib.suppress(FileNotFoundError):
        if 0 < offset <= os.path.getsize(path):
            state["offset"] = offset
            with open(path, "rb") as stream:
                while offset > 0 and (chunk := stream.read(min(offset, LONGEST))):
                    state["line"] += chunk.count(b"\n")
                    offset -= len(chunk)
        state = read(path, signatures, state, ended=ended)
    return state


def _small(path: str) -> Record:
    """The object in a JSON file of a run; {} where there is none, or one that is too large for a record's source."""
    found: Record = {}
    with contextlib.suppress(OSError):
        found = read_json(path) if os.path.getsize(path) <= LONGEST else {}
    return found


def _verdict(verdict: Mapping[str, Any]) -> Record:
    """What a rehearsal found, in short."""
    rungs = verdict.get("rungs")
    if not isinstance(rungs, list) or not isinstance(verdict.get("status"), str):
        return {}
    named = [rung for rung in rungs if isinstance(rung, dict) and isinstance(rung.get("rung"), str)]
    failed = [rung["rung"] for rung in named if rung.get("status") == "failed"]
    return {"verdict": {"status": verdict["status"], "failed": failed}}


def _pictures(results: Mapping[str, Any]) -> Record:
    """How many images an inference has seen, and the median time of one."""
    images = results.get("images")
    if not isinstance(images, list):
        return {}
    seconds = [image.get("seconds") for image in images if isinstance(image, dict)]
    finite = [value for value in seconds if isinstance(value, (int, float)) and math.isfinite(value)]
    return {"images": len(images), "seconds_per_image": round(statistics.median(finite), 4) if finite else None}
