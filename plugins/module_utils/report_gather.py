"""What playbooks/report.yml asks a server: itself, what is installed on it, and how its runs get on.

Of each log only what is new since an earlier look is read and told. Runs on servers: Python >= 3.9, standard library
only. Changes nothing. Whatever lies in a run's folder is data, and what is told of it is bounded.
"""

from __future__ import annotations

import base64
import contextlib
import os
import platform
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.module_utils.experiment_log import gone
from ansible.module_utils.experiment_runs import claims, folder_of, gpus, names, state_of
from ansible.module_utils.stack_generations import current_number, installs_of, numbers
from ansible.module_utils.stack_generations import folder_of as folder_of_generation
from ansible.module_utils.stack_installs import MARKER, RECEIPT, StackError, read_json
from ansible.module_utils.stack_lookup import driver_line
from ansible.module_utils.training_log import findings, new_state, progress, read, time_left

Answer = dict[str, Any]

RUNS = 500  # told of per server, the newest ones
GENERATIONS = 20
LONGEST = 2**20  # bytes of a JSON file that is read
TEXT = 2000  # characters of a text that is told
ITEMS = 200  # of a list or an object that are told
PICTURES = 4  # of a run: those with the most detections
PICTURE = 2**17  # bytes of one
ALL_PICTURES = 2**21  # bytes of those that one answer brings

# Of experiment.json: what a run was made of.
FACTS = (
    "name",
    "kind",
    "rehearsal",
    "config",
    "differences",
    "schedule",
    "datasets",
    "device",
    "stack",
    "generation",
    "detectron",
    "gpu_ids",
    "gpus",
    "driver",
    "weights",
    "server",
    "host",
    "since",
    "images",
)


def bounded(value: Any, depth: int = 6) -> Any:
    """A value of JSON's types, cut to what a page can show."""
    if isinstance(value, str):
        return value if len(value) <= TEXT else f"{value[:TEXT]}… ({len(value)} characters)"
    if isinstance(value, (list, dict)) and not depth:
        return "…"
    if isinstance(value, list):
        return [bounded(item, depth - 1) for item in value[:ITEMS]]
    if isinstance(value, dict):
        return {str(key)[:TEXT]: bounded(value[key], depth - 1) for key in list(value)[:ITEMS]}
    return value


def small(path: str) -> dict[str, Any]:
    """The object in a JSON file; {} where there is none, or one that is too large for what is asked of it."""
    with contextlib.suppress(OSError):
        found: dict[str, Any] = read_json(path) if os.path.getsize(path) <= LONGEST else {}
        return found
    return {}


def text(value: Any) -> str:
    """A text; "" for what is none."""
    return value if isinstance(value, str) else ""


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; [] for what is none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def modified(path: str) -> float:
    """When a file was last modified, in seconds since 1970; 0 where there is none."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


# --- The server -------------------------------------------------------------------------------------------------------


def server(prefix: str, name: str, now: float) -> Answer:
    """A server, and what is installed in a prefix of it. `name`: its folder in checks/."""
    return {
        "server": name,
        "prefix": prefix,
        "time": now,
        "stack": text(small(os.path.join(prefix, MARKER)).get("stack")),
        "machine": machine(),
        "disk": disk(prefix),
        "driver": driver_line(),
        **_gpus(prefix),
        "current": current_number(prefix),
        "generations": [_generation(prefix, number) for number in numbers(prefix)[:GENERATIONS]],
        "ladder": ladder(os.path.join(prefix, "checks", name, "ladder.json")),
    }


def machine() -> Answer:
    """The system's name, kernel, number of processors and bytes of memory."""
    system = platform.system()
    with contextlib.suppress(OSError), open("/etc/os-release", encoding="utf-8", errors="replace") as stream:
        said = dict(line.strip().split("=", 1) for line in stream.read(LONGEST).splitlines() if "=" in line)
        system = said.get("PRETTY_NAME", system).strip("\"'")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"system": system, "kernel": platform.release(), "cpus": os.cpu_count(), "memory": memory}


def disk(path: str) -> Answer:
    """Bytes of the file system on which a path is, or would be: free to this login, and in all."""
    while not os.path.isdir(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    try:
        found = os.statvfs(path)
    except OSError as error:
        return {"problem": f"{path}: {error.strerror}"}
    return {"free": found.f_bavail * found.f_frsize, "total": found.f_blocks * found.f_frsize}


def _gpus(prefix: str) -> Answer:
    """gpus (each with `run`, the experiment that has it, and how many processes compute on it), gpu_problem."""
    try:
        listed = gpus()
        taken = claims(prefix) if listed else {}
    except (StackError, OSError) as error:
        return {"gpus": [], "gpu_problem": str(error)}
    told = [
        {"index": gpu["index"], "name": gpu["name"], "used": gpu["used"], "processes": len(gpu["processes"])}
        for gpu in listed
    ]
    return {"gpus": [{**gpu, "run": taken.get(gpu["index"], "")} for gpu in told], "gpu_problem": ""}


def _generation(prefix: str, number: int) -> Answer:
    """A generation: its number, when it was made, its installs by role (version-digest)."""
    try:
        installs = installs_of(prefix, number)
    except OSError:
        installs = {}
    return {
        "number": number,
        "made": modified(os.path.join(folder_of_generation(prefix, number), RECEIPT)),
        "installs": {role: os.path.basename(path) for role, path in installs.items()},
    }


def ladder(path: str) -> Answer:
    """A server's last check ladder: when, and each rung with its status and the reason of what did not pass."""
    found = small(path)
    rungs = [
        {
            "rung": text(rung.get("rung")),
            "status": text(rung.get("status")),
            "checks": len(objects(rung.get("checks"))),
            "reason": text(rung.get("reason")),
            "failed": [
                {key: text(check.get(key)) for key in ("name", "reason", "detail", "remedy")}
                for check in objects(rung.get("checks"))
                if check.get("status") == "failed"
            ],
        }
        for rung in objects(found.get("rungs"))
    ]
    return {"time": modified(path) if rungs else 0.0, "rungs": rungs, "notes": found.get("notes", [])}


# --- Its runs ---------------------------------------------------------------------------------------------------------


def runs(prefix: str, signatures: Sequence[Mapping[str, Any]], known: Mapping[str, Any], now: float) -> Answer:
    """runs (by name), left_out (how many older ones are not told of).

    known: by name, what an earlier look told: run (the id of its start), log (its state), pictures (those that it
    brought).
    """
    found = sorted(
        names(prefix), key=lambda name: modified(os.path.join(folder_of(prefix, name), "experiment.json")), reverse=True
    )
    told: Answer = {}
    room = ALL_PICTURES
    for name in found[:RUNS]:
        # A folder's name may be no text at all.
        shown = os.fsencode(name).decode("utf-8", "replace")
        before = known.get(shown)
        told[shown] = run(folder_of(prefix, name), signatures, before if isinstance(before, dict) else {}, now, room)
        room -= sum(len(picture.get("data", "")) for picture in told[shown].get("pictures", []))
    return {"runs": told, "left_out": len(found[RUNS:])}


def run(
    folder: str, signatures: Sequence[Mapping[str, Any]], known: Mapping[str, Any], now: float, room: int
) -> Answer:
    """What became of a run, how far it is, what is wrong with it, and the points of its curves that are new.

    points: [iteration, loss, learning rate] of each. joins: whether they follow those that an earlier look told, which
    were taken at each `stride`; else that was another run's log, or its earlier start's, and these are all there are.
    """
    facts = small(os.path.join(folder, "experiment.json"))
    try:
        became = state_of(folder)
        told: Answer = {}
        if isinstance(known.get("log"), dict) and known.get("run") == facts.get("run"):
            # What is no state of a log, whoever wrote it, is as good as none.
            with contextlib.suppress(LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError):
                told = _run(folder, facts, became, signatures, known["log"], now)
        told = told or _run(folder, facts, became, signatures, {}, now)
    except (OSError, ValueError, TypeError) as error:
        return {"state": "unknown", "problem": f"{folder} cannot be read: {error}", "facts": bounded(_facts(facts))}
    return {**told, **_pictures(folder, known.get("pictures"), room)}


def _run(
    folder: str,
    facts: Mapping[str, Any],
    became: Mapping[str, Any],
    signatures: Sequence[Mapping[str, Any]],
    before: Mapping[str, Any],
    now: float,
) -> Answer:
    """What `run` tells but for the pictures; `before` is the state of its log at an earlier look. Raises OSError."""
    running = became["state"] == "running"
    state = new_state()
    with contextlib.suppress(FileNotFoundError):
        state = read(os.path.join(folder, "log.txt"), signatures, {**before, "series": []}, ended=not running)
    joins = bool(before) and state["offset"] >= before["offset"] and state["attempt"] == before["attempt"]
    points, state["series"] = state["series"], []
    told: Answer = bounded(
        {
            **became,
            "run": text(facts.get("run")),
            "facts": _facts(facts),
            "phase": state["phase"],
            "iteration": state["last"].get("iter", -1),
            "max_iter": state["max_iter"],
            "loss": {
                "first": next(iter(state["first"]), None),
                "last": state["last"].get("loss"),
                "least": state["least"],
            },
            "rate": state["last"].get("lr"),
            "progress": progress(state, now) if running else "",
            "left": time_left(state, now) if running else None,
            "said": state["log_at"],
            "findings": findings(state, signatures, now, became),
            "results": state["results"],
            "verdict": _verdict(small(os.path.join(folder, "verdict.json"))),
        }
    )
    return {**told, "log": state, "points": points, "joins": joins}


def past(prefix: str, known: Sequence[str]) -> list[Answer]:
    """What the log of experiments tells of runs whose folders are gone, newest first, without those that are known."""
    told = [
        {key: value for key, value in record.items() if key != "config_text"}
        for record in gone(prefix)[:ITEMS]
        if record["run"] not in known
    ]
    return [bounded(record) for record in told]


def _facts(facts: Mapping[str, Any]) -> Answer:
    return {key: facts[key] for key in FACTS if key in facts}


def _verdict(verdict: Mapping[str, Any]) -> Answer:
    """What a rehearsal found: its status, and each rung."""
    rungs = [
        {key: text(rung.get(key)) for key in ("rung", "status", "reason", "remedy")}
        for rung in objects(verdict.get("rungs"))
    ]
    return {"status": text(verdict.get("status")), "rungs": rungs} if rungs else {}


def _pictures(folder: str, had: Any, room: int) -> Answer:
    """images (how many an inference has seen), seconds (each took), pictures: small ones, with `data` where new."""
    listed = objects(small(os.path.join(folder, "results.json")).get("images"))
    if not listed:
        return {}
    seconds = sorted(item["seconds"] for item in listed if isinstance(item.get("seconds"), (int, float)))
    told: list[Answer] = []
    for item in sorted(listed, key=lambda item: -number(item.get("detections")))[:ITEMS]:
        if len(told) == PICTURES:
            break
        name = os.path.basename(text(item.get("small")))
        with contextlib.suppress(OSError, ValueError):
            picture: Answer = {"image": text(item.get("image"))[:ITEMS], "detections": number(item.get("detections"))}
            picture.update(_picture(os.path.join(folder, "pictures", name), had if isinstance(had, list) else []))
            if len(picture.get("data", "")) <= room:
                room -= len(picture.get("data", ""))
                told.append(picture)
    return {"images": len(listed), "seconds": seconds[len(seconds) // 2] if seconds else None, "pictures": told}


def number(value: Any) -> float:
    return value if isinstance(value, (int, float)) else 0.0


def _picture(path: str, had: Sequence[Any]) -> Answer:
    """A JPEG file: id, which changes with it, and data in base64 unless it is one of those that are `had`.

    Raises OSError, and ValueError for what is no such file, or a large one.
    """
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode) or not 0 < found.st_size <= PICTURE:
        raise ValueError(path)
    identity = f"{os.path.basename(path)}:{found.st_size}:{found.st_mtime_ns}"
    if identity in had:
        return {"id": identity}
    with open(path, "rb") as stream:
        data = stream.read(PICTURE)
    if not data.startswith(b"\xff\xd8\xff"):
        raise ValueError(path)
    return {"id": identity, "data": base64.b64encode(data).decode()}
