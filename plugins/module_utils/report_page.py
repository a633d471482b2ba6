"""The page of playbooks/report.yml: one HTML file about all servers and their runs, which asks no network for anything.

What is shown comes from servers, so the template (files/report/page.html.j2) escapes all of it, and the page's own
policy lets no script run but the two that are in it. Tables and texts are there without JavaScript; curves are data
that the page's script unpacks and draws when they are asked for. Runs on the controller.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from ansible.module_utils.report_state import State, finite, plain, points
from ansible.module_utils.training_log import clock
from markupsafe import Markup

View = dict[str, Any]

NAME = 80  # characters of a name in a table
PICTURES = 4 * 2**20  # characters of all pictures of a page, those of the newest runs first
SPARK = 40  # points of the small curve in the table
WIDTH, HEIGHT = 96, 22  # of it
MARKS = {"passed": "passed", "failed": "failed", "not_applicable": "n/a"}
ENDED = ("finished", "failed", "stopped", "died", "gone")
STATES = ("running", *ENDED, "unknown")
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_DIFFERENCE = re.compile(r"([\w.]+): (.*) -> (.*)", re.DOTALL)


# --- Reading what is known, whatever it is ----------------------------------------------------------------------------


def part(value: Any, *keys: str) -> dict[str, Any]:
    """The object at a path of keys; {} where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def text(value: Any, key: str, default: str = "") -> str:
    """The text, or the number as text, of a key."""
    found = value.get(key) if isinstance(value, dict) else None
    if isinstance(found, str):
        return found
    return default if finite(found) is None else f"{found:g}"


def number(value: Any, key: str) -> float | None:
    return finite(value.get(key)) if isinstance(value, dict) else None


def objects(value: Any, key: str) -> list[dict[str, Any]]:
    """The objects of the list of a key."""
    found = value.get(key) if isinstance(value, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def texts(value: Any, key: str) -> list[str]:
    """The texts of the list of a key."""
    found = value.get(key) if isinstance(value, dict) else None
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []


# --- Words for people -------------------------------------------------------------------------------------------------


def short(words: Any, characters: int = NAME) -> str:
    """A text that fits into a table."""
    said = str(words)
    return said if len(said) <= characters else f"{said[:characters]}… (truncated)"


def marked(words: str) -> Markup:
    """A text with its `code` set as such."""
    parts = words.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(said) if at % 2 else said for at, said in enumerate(parts))


def size(count: float | None) -> str:
    """Bytes as people read them."""
    if count is None:
        return "?"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB" if count < 1000 else f"{count / 1000:.3g} PB"


def moment(when: float | None) -> str:
    """A time, in UTC."""
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when)) if when else ""
    except (OverflowError, ValueError, OSError):
        return ""


def ago(when: float | None, now: float) -> str:
    """How long ago a time is."""
    age = max(0.0, now - when) if when else 0.0
    return (f"{age / 86400:.0f} d ago" if age >= 2 * 86400 else f"{clock(age)} ago") if when else ""


def figure(value: float | None) -> str:
    """A number in four digits."""
    return "" if value is None else f"{value:.4g}"


def whole(value: float | None) -> str:
    """A whole number, its thousands set apart."""
    return "" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def identity(*names: str) -> str:
    """What an element of the page is called, the same from page to page."""
    return hashlib.sha256("\0".join(names).encode(errors="replace")).hexdigest()[:10]


# --- Servers ----------------------------------------------------------------------------------------------------------


def server(state: State, asked: bool, now: float) -> View:
    """A row of the fleet, and what is told below it. asked: whether this page's own look asked it."""
    told = plain(state["server"])
    answered, disk = finite(state["answered"]), part(told, "disk")
    free, total = number(disk, "free"), number(disk, "total")
    rungs = [_rung(rung) for rung in objects(part(told, "ladder"), "rungs")]
    generations = [_generation(found, number(told, "current"), now) for found in objects(told, "generations")]
    current = next((found for found in generations if found["current"]), None)
    listed = objects(told, "gpus")
    version = re.search(r"\b(\d{3}\.\d+(?:\.\d+)?)\b", text(told, "driver"))
    became = "answered" if answered else "unknown"
    if state["problem"]:
        became = "refused" if state["reached"] else "silent"
    names = Counter(text(gpu, "name") for gpu in listed)
    host = plain(state["host"])
    return {
        "id": f"server-{identity(state['host'])}",
        "host": host,
        "name": text(told, "server"),
        "stack": plain(text(state, "stack")) or text(told, "stack"),
        "installed": text(told, "stack"),
        "prefix": text(told, "prefix"),
        "machine": part(told, "machine"),
        "became": became,
        "asked": asked,
        "answered": answered,
        "problem": plain(state["problem"]),
        "since": finite(state["since"]),
        "generation": current,
        "generations": generations,
        "rungs": rungs,
        "ladder_time": number(part(told, "ladder"), "time"),
        "notes": texts(part(told, "ladder"), "notes"),
        "gpus": [{**gpu, "index": text(gpu, "index"), "name": text(gpu, "name")} for gpu in listed],
        "gpu_names": ", ".join(f"{count} \u00d7 {short(name, 40)}" for name, count in names.items()),
        "gpu_busy": sum(bool(text(gpu, "run") or number(gpu, "processes")) for gpu in listed),
        "gpu_problem": text(told, "gpu_problem"),
        "driver": version[1] if version else "",
        "free": free,
        "total": total,
        "used": None if free is None or not total else min(100.0, max(0.0, 100 * (1 - free / total))),
        "disk_problem": text(disk, "problem"),
        "left_out": state["left_out"],
        "passed": sum(rung["status"] == "passed" for rung in rungs),
        "failed": [rung for rung in rungs if rung["status"] == "failed"],
    }


def _rung(rung: Mapping[str, Any]) -> View:
    status = text(rung, "status")
    failed = [
        {"name": text(check, "name"), "why": text(check, "reason") or text(check, "detail"), **_remedy(check)}
        for check in objects(rung, "failed")
    ]
    return {
        "rung": text(rung, "rung"),
        "status": status if status in MARKS else "unknown",
        "mark": MARKS.get(status, "?"),
        "reason": text(rung, "reason"),
        "checks": number(rung, "checks"),
        "failed": failed,
    }


def _remedy(found: Mapping[str, Any]) -> View:
    return {"remedy": text(found, "remedy")}


def _generation(found: Mapping[str, Any], current: float | None, now: float) -> View:
    installs = part(found, "installs")
    made = number(found, "made")
    return {
        "number": text(found, "number"),
        "current": bool(current) and number(found, "number") == current,
        "made": made,
        "age": ago(made, now),
        "installs": [(role, text(installs, role)) for role in sorted(installs)],
    }


# --- Runs -------------------------------------------------------------------------------------------------------------


def run(host: str, name: str, told: Mapping[str, Any], stale: bool, now: float) -> View:
    """A row of the table of runs, what is told below it, and its curves. stale: its server did not answer."""
    curve = points(told.get("series"))
    pictures = objects(told, "pictures")
    clean = plain({key: value for key, value in told.items() if key not in ("series", "pictures", "log")})
    facts = part(clean, "facts") or clean  # those of a run whose folder is gone are its record itself
    state = text(clean, "state")
    iteration, last = number(clean, "iteration"), number(clean, "max_iter")
    left = number(clean, "left")
    found = [_finding(finding) for finding in objects(clean, "findings")]
    verdict = part(clean, "verdict")
    differences = [_difference(said) for said in texts(facts, "differences")]
    results = _results(part(clean, "results"))
    kind = text(facts, "kind") or ("rehearsal" if facts.get("rehearsal") is True else "training")
    config = text(facts, "config")
    begun = number(facts, "started")
    shown = plain(name)
    return {
        "id": f"run-{identity(host, name)}",
        "run": text(clean, "run"),
        "name": shown,
        "host": plain(host),
        "server_id": f"server-{identity(host)}",
        "kind": kind,
        "state": state if state in STATES else "unknown",
        "stale": stale and state == "running",
        "gone": False,
        "problem": text(clean, "problem"),
        "status": text(clean, "status"),
        "signal": text(clean, "signal"),
        "since": text(facts, "since") or moment(begun),
        "ended": number(clean, "ended"),
        "iteration": iteration if iteration is not None and iteration >= 0 else None,
        "max_iter": last or None,
        "percent": min(100.0, 100 * iteration / last) if iteration is not None and iteration >= 0 and last else None,
        "progress": text(clean, "progress"),
        "left": left,
        "left_words": "" if left is None else clock(left),
        "loss": {key: number(part(clean, "loss"), key) for key in ("first", "last", "least")},
        "loss_words": figure(number(part(clean, "loss"), "last")) or ("NaN" if curve and curve[-1][1] is None else ""),
        "curve": curve,
        "spark": spark(curve),
        "words": curve_words(curve),
        "results": results,
        "ap": _main_results(results),
        "findings": found,
        "diagnosis": found[0] if found else _verdict_finding(verdict),
        "verdict": {
            "status": text(verdict, "status").replace("_", " "),
            "rungs": [
                {**rung, "mark": MARKS.get(text(rung, "status"), "?"), "reason": text(rung, "reason")}
                for rung in objects(verdict, "rungs")
            ],
        },
        "config": config,
        "config_name": config.rsplit("/", 1)[-1].removesuffix(".yaml"),
        "differences": differences,
        "schedule": [(key, value) for key, value in _flat(part(facts, "schedule"))],
        "batch": _batch(part(facts, "schedule")),
        "datasets": [(key, value) for key, value in _flat(part(facts, "datasets"))],
        "made_of": _made_of(facts),
        "said": number(clean, "said"),
        "checkpoint": number(clean, "checkpoint"),
        "final": clean.get("final") is True,
        "images": number(clean, "images"),
        "seconds": number(clean, "seconds") or number(clean, "seconds_per_image"),
        "pictures": [_picture(picture) for picture in pictures],
    }


def past(host: str, record: Mapping[str, Any], now: float) -> View:
    """A run whose folder is gone, of which the log of experiments tells."""
    name = record.get("name")
    found = run(host, name if isinstance(name, str) else "?", {**record, "facts": {**record}}, False, now)
    return {**found, "id": f"run-{identity(host, str(name), str(record.get('run')))}", "gone": True}


def _finding(found: Mapping[str, Any]) -> View:
    line = number(found, "line")
    return {
        "title": text(found, "title") or text(found, "id"),
        "severity": "fatal" if text(found, "severity") == "fatal" else "warning",
        "line": f"log.txt:{line:.0f}" if line else "",
        "text": text(found, "text"),
        "cause": " ".join(text(found, "cause").split()),
        "remedy": " ".join(text(found, "remedy").split()),
    }


def _verdict_finding(verdict: Mapping[str, Any]) -> View | None:
    """What a rehearsal that failed says in a line."""
    failed = [text(rung, "rung") for rung in objects(verdict, "rungs") if text(rung, "status") == "failed"]
    failed = failed or texts(verdict, "failed")
    return {"title": f"Rehearsal failed: {', '.join(failed)}", "severity": "fatal"} if failed else None


def _difference(said: str) -> list[str]:
    """[option, value of the baseline, value of the run] of a line that tells a difference."""
    found = _DIFFERENCE.fullmatch(said)
    return [found[1], found[2], found[3]] if found else [said, "", ""]


def _flat(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        yield key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _batch(schedule: Mapping[str, Any]) -> float | None:
    """Images that a run sees in an iteration."""
    gpus, images = number(schedule, "NUM_GPUS"), number(schedule, "TRAIN.IMS_PER_BATCH")
    return gpus * images if gpus and images and 0 < gpus * images < 1e6 else None


def _results(results: Mapping[str, Any]) -> list[View]:
    """Tables of average precision: dataset, task, and a value (or None) for each metric."""
    tables = []
    for dataset, tasks in results.items():
        for task, values in tasks.items() if isinstance(tasks, dict) else ():
            if isinstance(values, dict):
                known = [metric for metric in METRICS if metric in values]
                names = known + [str(metric) for metric in values if metric not in METRICS]
                tables.append(
                    {"dataset": dataset, "task": task, "values": [(name, number(values, name)) for name in names]}
                )
    return tables


def _main_results(results: Sequence[View]) -> list[tuple[str, float]]:
    """(task, AP) of the first dataset."""
    first = results[0]["dataset"] if results else ""
    found = [(table["task"], dict(table["values"]).get("AP")) for table in results if table["dataset"] == first]
    return [(task, value) for task, value in found if value is not None]


def _made_of(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a run was made of, by name."""
    gpus = [f"{text(gpu, 'index')} ({text(gpu, 'name')})" for gpu in objects(facts, "gpus")]
    listed = facts.get("gpu_ids")
    ids = [f"{finite(gpu):.0f}" for gpu in (listed if isinstance(listed, list) else []) if finite(gpu) is not None]
    detectron, weights = part(facts, "detectron"), part(facts, "weights")
    installs = part(facts, "installs")
    said = [
        ("Config", text(facts, "config")),
        ("Device", text(facts, "device")),
        ("GPUs", ", ".join(gpus or ids)),
        ("Driver", text(facts, "driver")),
        ("Stack", text(facts, "stack")),
        ("Generation", text(facts, "generation").rsplit("/", 1)[-1]),
        ("Installs", ", ".join(f"{role} {text(installs, role)}" for role in sorted(installs))),
        ("Detectron", " ".join(filter(None, (text(detectron, "commit")[:12], text(detectron, "path"))))),
        (
            "Weights",
            " ".join(f"{key} {text(weights, key)}" if key != "path" else text(weights, key) for key in weights),
        ),
    ]
    return [(name, value) for name, value in said if value]


def _picture(picture: Mapping[str, Any]) -> View:
    count = number(picture, "detections")
    name = plain(text(picture, "image"))
    found = "detections unknown" if count is None else f"{count:.0f} {'detection' if count == 1 else 'detections'}"
    data = picture.get("data")
    good = isinstance(data, str) and re.fullmatch(r"/9j/[A-Za-z0-9+/]*={0,2}", data)
    return {"image": name, "found": found, "data": data if good else ""}


def spark(curve: Sequence[Sequence[float | None]]) -> str:
    """A small curve of the loss, logarithmic: points of a polyline, "" without two."""
    kept = [(point[0], point[1]) for point in curve if point[0] is not None and point[1] is not None and point[1] > 0]
    kept = kept[:: max(1, math.ceil(len(kept) / SPARK))] + kept[-1:]
    if len(kept) < 3:
        return ""
    across = [x for x, _y in kept if x is not None]
    up = [math.log(y) for _x, y in kept if y]
    left, wide = min(across), max(across) - min(across) or 1
    low, high = min(up), max(up) - min(up) or 1
    places = (
        f"{1 + (WIDTH - 2) * (x - left) / wide:.1f},{1 + (HEIGHT - 2) * (1 - (y - low) / high):.1f}"
        for x, y in zip(across, up, strict=True)
    )
    return " ".join(places)


def curve_words(curve: Sequence[Sequence[float | None]]) -> str:
    """A curve in words: first, last and least loss."""
    kept = [(x, y) for x, y, _rate in curve if x is not None and y is not None]
    if not kept:
        return ""
    least = min(kept, key=lambda point: point[1])
    (first_x, first), (last_x, last) = kept[0], kept[-1]
    words = (
        f"Loss {figure(first)} at iteration {whole(first_x)}, {figure(last)} at iteration {whole(last_x)}; "
        f"least {figure(least[1])} at iteration {whole(least[0])}."
    )
    lost = len(curve) - len(kept)
    return f"{words} Not a number at {lost} of {len(curve)} points." if lost else words


# --- All together -----------------------------------------------------------------------------------------------------


def view(states: Sequence[State], asked: Iterable[str], now: float) -> View:
    """All that the page shows. asked: the servers that this look asked; the others are shown as they were known."""
    looked = set(asked)
    servers = [server(state, state["host"] in looked, now) for state in states]
    runs: dict[tuple[str, str], View] = {}
    for state in states:
        for name, told in state["runs"].items():
            found = run(state["host"], name, told, bool(state["problem"]), now)
            _add(runs, found, told)
        for record in state["past"]:
            _add(runs, past(state["host"], record, now), record)
    listed = sorted(runs.values(), key=lambda found: found["since"], reverse=True)
    listed.sort(key=lambda found: found["state"] != "running")
    room = PICTURES
    for found in listed:
        for picture in found["pictures"]:
            room -= len(picture["data"])
            picture["data"] = picture["data"] if room >= 0 else ""
        found["pictures"] = [picture for picture in found["pictures"] if picture["data"]]
    for row in servers:
        own = [found for found in listed if found["server_id"] == row["id"]]
        row["runs"] = own
        row["running"] = sum(found["state"] == "running" for found in own)
    return {
        "servers": servers,
        "runs": listed,
        "states": [(name, count) for name in STATES if (count := sum(found["state"] == name for found in listed))],
        "kinds": sorted({found["kind"] for found in listed}),
        "silent": [row for row in servers if row["became"] != "answered"],
        "gallery": [found for found in listed if found["pictures"]],
        "attention": attention(servers, listed, now),
        "gpus": sum(len(row["gpus"]) for row in servers),
        "gpus_busy": sum(row["gpu_busy"] for row in servers),
    }


def _add(runs: dict[tuple[str, str], View], found: View, told: Mapping[str, Any]) -> None:
    """Add a run. Servers that share a home tell of the same ones: the one where it was started is shown."""
    key = (found["run"] or found["id"], found["name"])
    home = text(part(told, "facts") or told, "host") == found["host"] or told.get("here") is True
    if key not in runs or home:
        runs[key] = found


def attention(servers: Sequence[View], runs: Sequence[View], now: float) -> list[View]:
    """What a person should look at: worst first."""
    found = []
    for row in servers:
        if row["problem"]:
            since = f" for {clock(max(0.0, now - row['since']))}" if row["since"] and now - row["since"] > 60 else ""
            what = "has not answered" if row["became"] == "silent" else "could not be looked at"
            found.append(_look(row, "fatal", f"{what}{since}", row["problem"]))
        elif row["gpu_problem"]:
            found.append(_look(row, "fatal", "its GPUs cannot be seen", row["gpu_problem"]))
        found += [
            _look(row, "warning", f"check ladder failed at {rung['rung']}", rung["reason"]) for rung in row["failed"]
        ]
        if row["used"] is not None and row["used"] > 95:
            found.append(
                _look(row, "warning", f"its disk is {row['used']:.0f} % full", f"{size(row['free'])} are free")
            )
    for row in runs:
        wrong = row["diagnosis"]
        if not row["gone"] and wrong and (row["state"] in ("running", "failed", "died") or not row["findings"]):
            said = row["findings"][0]["text"] if row["findings"] else ""
            found.append(
                {**_look(row, wrong["severity"], wrong["title"], said), "name": row["name"], "where": row["host"]}
            )
    return sorted(found, key=lambda item: item["severity"] != "fatal")


def _look(row: View, severity: str, what: str, why: str) -> View:
    return {"id": row["id"], "name": row["host"], "where": "", "severity": severity, "what": what, "why": why}


# --- Writing ----------------------------------------------------------------------------------------------------------


def payload(runs: Sequence[View]) -> dict[str, Any]:
    """What the page's script draws and compares, by run."""
    return {
        found["id"]: {
            "name": short(found["name"]),
            "host": short(found["host"]),
            "x": [point[0] for point in found["curve"]],
            "loss": [_digits(point[1]) for point in found["curve"]],
            "rate": [_digits(point[2]) for point in found["curve"]],
            "batch": found["batch"],
            "config": short(found["config_name"]),
            "differences": found["differences"],
            "schedule": found["schedule"],
            "results": [
                [f"{table['dataset']} {table['task']} {metric}", value]
                for table in found["results"]
                for metric, value in table["values"]
            ],
            "state": found["state"],
            "final": [found["loss"]["last"], found["loss"]["least"], found["iteration"]],
        }
        for found in runs
    }


def _digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def packed(data: bytes) -> str:
    """Gzip, in base64. The same for the same data."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def plotly() -> bytes:
    """plotly.js, as the package plotly brings it. Raises FileNotFoundError, with the remedy."""
    spec = importlib.util.find_spec("plotly")
    for folder in (spec.submodule_search_locations if spec else None) or []:
        path = Path(folder, "package_data/plotly.min.js")
        if path.is_file():
            return path.read_bytes()
    raise FileNotFoundError(
        "The Python package plotly, whose plotly.min.js draws the curves, is not installed beside Ansible. Install "
        "what requirements.txt names: python -m pip install -r requirements.txt"
    )


def source(script: str) -> str:
    """A script as a Content-Security-Policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def page(found: View, files: Path, now: float, commit: str) -> str:
    """The page. files: the folder of its template, style and script."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(files),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        short=short, marked=marked, size=size, moment=moment, figure=figure, whole=whole, clock=clock
    )
    style, script = ((files / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    drawing = plotly().decode()
    data = json.dumps(payload(found["runs"]), separators=(",", ":"), allow_nan=False)
    policy = (
        f"default-src 'none'; script-src {source(script)} {source(drawing)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return environment.get_template("page.html.j2").render(
        **found,
        now=now,
        commit=commit,
        policy=policy,
        style=style,
        script=script,
        data=packed(data.encode()),
        drawing=packed(drawing.encode()),
        ago=lambda when: ago(when, now),
        width=WIDTH,
        height=HEIGHT,
    )
