"""Records of runs (experiment_log) for people and for spreadsheets. Runs on the controller.

A record may come from a hand that meant no good: what is shown of it has no control characters, and no cell of a
spreadsheet is a formula.
"""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from ansible.module_utils import detectron_config as configs
from ansible.module_utils.stack_installs import StackError
from ansible.module_utils.training_log import clock

Record = Mapping[str, Any]

COLOURS = {"failed": "red", "died": "red", "running": "cyan", "finished": "green"}
KINDS = {"training": "train", "rehearsal": "rehearse", "inference": "infer", "evaluation": "evaluate"}
HEADER = ("name", "kind", "server", "started", "took", "state", "done", "loss", "AP %", "note")
NAMES = (10, 28)  # columns that names get, at least and at most; longer ones have a line of their own
CELL = 14  # columns of a cell of a comparison at least
APART = ("OUTPUT_DIR",)  # options in which runs differ anyway
CSV = (
    "name", "run", "kind", "server", "host", "started", "ended", "seconds", "state", "status", "signal",
    "iteration", "max_iter", "loss_first", "loss_last", "loss_least", "checkpoint", "final", "dataset", "box_AP",
    "box_AP50", "box_AP75", "mask_AP", "mask_AP50", "mask_AP75", "keypoint_AP", "keypoint_AP50", "keypoint_AP75",
    "images", "seconds_per_image", "diagnosis", "diagnosis_line", "diagnosis_text", "verdict", "failed_rungs",
    "config", "differences", "base_lr", "num_gpus", "gpu_ids", "gpus", "driver", "device", "stack", "generation",
    "installs", "detectron_path", "detectron_commit", "datasets", "weights", "weights_sum", "resumed",
)  # fmt: skip
TASKS = ("box", "mask", "keypoint")


def text(value: Any) -> str:
    """A value for a terminal: no control characters, nothing that turns the direction of writing."""
    return "".join(char if char.isprintable() else " " for char in str(value))


def number(value: float | None, digits: int = 4) -> str:
    """A number; - for none."""
    return "-" if value is None else f"{value:.{digits}g}"


# --- Which


def chosen(records: Sequence[Record], said: str) -> list[Record]:
    """The records that names mean, joined by commas: NAME, NAME@SERVER; all where nothing is said.

    Raises StackError for a name that no run has.
    """
    wanted = [name.strip() for name in said.split(",") if name.strip()]
    for name in wanted:
        if not any(_means(record, name) for record in records):
            known = dict.fromkeys(text(record["name"]) for record in records)
            raise StackError(f"There is no run {name}. Known are: {', '.join(known) or 'none'}.")
    return [record for record in records if not wanted or any(_means(record, name) for name in wanted)]


def _means(record: Record, name: str) -> bool:
    name, _, server = name.partition("@")
    return bool(record["name"] == name and server in ("", record.get("host"), record.get("server")))


def compared(records: Sequence[Record], said: str) -> list[Record]:
    """The runs that are to be compared: of each name the newest, of NAME~1 the one before it, and so on.

    Raises StackError where there is none, or there is nothing to compare.
    """
    runs = []
    for name in [name.strip() for name in said.split(",") if name.strip()]:
        which, _, before = name.partition("~")
        found = chosen(records, which)
        if not re.fullmatch(r"\d{0,6}", before) or int(before or 0) >= len(found):
            times = "1 time" if len(found) == 1 else f"{len(found)} times"
            raise StackError(f"There is no run {name}: {which} has been started {times}. ~1 is the last but one.")
        runs.append(found[int(before or 0)])
    if len(runs) < 2:
        raise StackError("Name at least two runs to compare: -e runs_compare=e2e_2,e2e_4")
    return runs


# --- The list


def _server(record: Record) -> str:
    return text(record.get("host") or record.get("server") or "?")


def _moment(seconds: float, now: float) -> str:
    """A moment in this machine's time; the year only where it is another."""
    then, today = time.localtime(seconds), time.localtime(now)
    return time.strftime("%m-%d %H:%M" if then.tm_year == today.tm_year else "%Y-%m-%d", then)


def _took(record: Record, now: float) -> float | None:
    ended = now if record["state"] == "running" else record.get("ended")
    return None if ended is None else max(0.0, ended - record["started"])


def _done(record: Record) -> str:
    """How far a run got: its iteration, of how many where it did not get to the end; images of an inference."""
    if "images" in record:
        return f"{record['images']} images"
    iteration, last = int(record.get("iteration", -1)), int(record.get("max_iter", 0))
    if iteration < 0:
        return "-"
    return (
        f"{_count(iteration)}/{_count(last)}"
        if iteration < last and not record.get("final")
        else _count(last or iteration)
    )


def _count(iterations: int) -> str:
    """Iterations in a few columns: 1240, 81k."""
    return str(iterations) if iterations < 10000 else f"{iterations / 1000:.0f}k"


def _briefly(seconds: float) -> str:
    """A duration in a few columns: 41s, 5m, 11h7m, 4d3h."""
    return str(clock(seconds)).replace(" ", "").replace("min", "m")


def _ap(record: Record) -> str:
    """Average precision of the first dataset in percent, task after task; a rehearsal's means nothing."""
    tables: Mapping[str, Any]
    tables = {} if record["kind"] == "rehearsal" else next(iter(record.get("results", {}).values()), {})
    found: list[float] = [metrics["AP"] for metrics in tables.values() if metrics.get("AP") is not None]
    return "/".join(f"{100 * value:.1f}" if value >= 0 else "-" for value in found) or "-"


def diagnosis(record: Record) -> Mapping[str, Any]:
    """The worst that was found; {} for nothing."""
    return next(iter(record.get("findings", [])), {})


def note(record: Record) -> str:
    """What is to be said of a run in a word or two."""
    if record["state"] == "gone":
        return "its folder is gone"
    if record["state"] == "unknown":
        return str(record.get("why", ""))
    if failed := record.get("verdict", {}).get("failed"):
        return ", ".join(failed)
    if (found := diagnosis(record)) and found.get("id") != record["state"]:
        return str(found.get("id", ""))
    if record.get("left") is not None:
        return f"{clock(record['left'])} left"
    if record.get("seconds_per_image") is not None:
        return f"{record['seconds_per_image']:.3g} s each"
    return ""


def _row(record: Record, now: float) -> list[str]:
    took = _took(record, now)
    said = record.get("verdict", {}).get("status", "")
    return [
        text(record["name"]),
        KINDS.get(record["kind"], text(record["kind"])),
        _server(record),
        _moment(record["started"], now),
        "-" if took is None else _briefly(took),
        "passed" if said == "passed" and record["state"] == "finished" else text(record["state"]),
        _done(record),
        number(record.get("loss", {}).get("last"), 3),
        _ap(record),
        text(note(record)),
    ]


def listed(records: Sequence[Record], width: int, now: float) -> list[tuple[str, str | None]]:
    """(line, colour) of a table of runs, in their order. Columns that say nothing of any run are left out."""
    rows = [_row(record, now) for record in records]
    silent = {
        column
        for column, name in enumerate(HEADER)
        if name in ("done", "loss", "AP %", "note") and all(row[column] in ("-", "") for row in rows)
    }
    table = [[cell for column, cell in enumerate(row) if column not in silent] for row in (HEADER, *rows)]
    columns, gap, names = _layout(table, width)
    widths = [names, *(max(len(row[column]) for row in table) for column in range(1, columns))]
    lines: list[tuple[str, str | None]] = []
    for row, colour in zip(table, (None, *(COLOURS.get(record["state"]) for record in records)), strict=True):
        fits = len(row[0]) <= names
        if lines and not fits:
            lines.append((row[0], colour))
        lines.append((_line([row[0] if fits else "", *row[1:columns]], widths, gap), colour))
        if len(lines) > 1:
            lines += [(f"  {part}", colour) for said in row[columns:] for part in textwrap.wrap(said, width - 2)]
    return lines


def _layout(table: Sequence[Sequence[str]], width: int) -> tuple[int, str, int]:
    """(columns of a table, what is between them, width of the first) in a terminal of a width: where all does not fit,
    notes have lines of their own, then names that are longer than others, then all names."""
    room = [max(map(len, column)) for column in zip(*table, strict=True)]
    names, count = min(room[0], NAMES[1]), len(room)
    for columns, gap in ((count, "  "), (count, " "), (count - (table[0][-1] == "note"), " ")):
        rest = sum(room[1:columns]) + len(gap) * (columns - 1)
        if names + rest <= width:
            return columns, gap, names
    return columns, gap, width - rest if width - rest >= NAMES[0] else 1


def _line(row: Iterable[str], widths: Iterable[int], gap: str) -> str:
    return gap.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


# --- The comparison


def comparison(records: Sequence[Record], width: int, now: float) -> list[str]:
    """What differs between runs, in their configs and in what they were made of, and what came out, in columns."""
    parts = [
        ("", [(key, [_row(record, now)[HEADER.index(key)] for record in records]) for key in ("name", "kind", "server")]
         + [("started", [_since(record) for record in records])]),
        ("Config", _differing([_options(record) for record in records])),
        ("Made of", _differing([_made_of(record) for record in records])),
        ("Result", _all([_result(record, now) for record in records])),
    ]  # fmt: skip
    keys = max((len(key) for _title, rows in parts for key, _cells in rows), default=0)
    room = max(CELL, (width - keys - 2 * len(records)) // len(records))
    lines: list[str] = []
    for title, rows in parts:
        if title:
            lines += ["", f"{title}{'' if rows else ': no difference'}"]
        for key, cells in rows:
            wrapped = [textwrap.wrap(text(cell), room) or [""] for cell in cells]
            for level in range(max(map(len, wrapped))):
                row = [part[level] if level < len(part) else "" for part in wrapped]
                lines.append(_line([key if level == 0 else "", *row], [keys, *[room] * len(row)], "  "))
    return lines


def _since(record: Record) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(record["started"]))


def _options(record: Record) -> dict[str, str]:
    """The options of a run's config by dotted keys."""
    said = record.get("config_text", "")
    if not said:
        return {"(config)": "not recorded"}
    try:
        # Of a hostile one, a few words can stand for more than any memory holds. Ours have no such shortcuts.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(said)):
            return {"(config)": "cannot be read: it has aliases"}
        flat = configs.flat(configs.parse(said))
        decoded = {key: configs.decode(value) for key, value in flat.items() if key not in APART}
    except (configs.ConfigError, yaml.YAMLError, RecursionError) as error:
        return {"(config)": f"cannot be read: {error}"}
    return {key: str(list(value) if isinstance(value, tuple) else value) for key, value in decoded.items()}


def _made_of(record: Record) -> dict[str, str]:
    """What besides its config shaped a run."""
    detectron, weights = record.get("detectron", {}), record.get("weights", {})
    gpus = [gpu.get("name", "?") for gpu in record.get("gpus", [])]
    return {
        "config": str(record.get("config", "")),
        "stack": record.get("stack", ""),
        **{str(role): str(install) for role, install in record.get("installs", {}).items()},
        "detectron commit": str(detectron.get("commit", "")),
        "device": record.get("device", ""),
        "GPUs": ", ".join(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)),
        "driver": record.get("driver", ""),
        "weights": " ".join(filter(None, [weights.get("path", ""), weights.get("sha256") or weights.get("md5", "")])),
        **{f"dataset {name}": fingerprint or "?" for name, fingerprint in record.get("datasets", {}).items()},
    }


def _result(record: Record, now: float) -> dict[str, str]:
    took, loss = _took(record, now), record.get("loss", {})
    result = {
        "state": text(record["state"]),
        "note": note(record),
        "took": "" if took is None else clock(took),
        "done": _done(record),
        **{f"loss, {key}": number(loss[key]) for key in ("first", "last", "least") if loss.get(key) is not None},
    }
    for dataset, tables in record.get("results", {}).items():
        for task, metrics in tables.items():
            result |= {f"{dataset} {task} {metric}": number(value) for metric, value in metrics.items()}
    if record.get("seconds_per_image") is not None:
        result["s per image"] = number(record["seconds_per_image"])
    return result


def _all(sides: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    """(key, a cell for each run) of what any run has."""
    keys = dict.fromkeys(key for side in sides for key in side)
    rows = [(text(key), [side.get(key) or "-" for side in sides]) for key in keys]
    return [row for row in rows if set(row[1]) != {"-"}]


def _differing(sides: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    return [row for row in _all(sides) if len(set(row[1])) > 1]


# --- Files


def as_json(records: Sequence[Record], missing: Sequence[str]) -> str:
    """All that is known of runs; `missing`: servers that could not be asked."""
    return json.dumps({"schema": 1, "missing": list(missing), "runs": list(records)}, indent=1, sort_keys=True) + "\n"


def as_csv(records: Sequence[Record], _missing: Sequence[str]) -> str:
    """A row for each run, under the same columns always."""
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    table.writerow(CSV)
    for record in records:
        cells = _cells(record)
        table.writerow([_cell(cells.get(column)) for column in CSV])
    return written.getvalue()


def _cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    if value is None or isinstance(value, (int, float)):
        return "" if value is None else value
    said = text(value)
    return f"'{said}" if said.lstrip()[:1] in ("=", "+", "-", "@") else said


def _cells(record: Record) -> dict[str, Any]:
    loss, found = record.get("loss", {}), diagnosis(record)
    results: dict[str, dict[str, dict[str, Any]]] = record.get("results", {})
    dataset = next(iter(results), "")
    tables = results.get(dataset, {})
    weights, verdict = record.get("weights", {}), record.get("verdict", {})
    took = None if record.get("ended") is None else record["ended"] - record["started"]
    return {
        **{key: record.get(key) for key in CSV},
        "started": _utc(record["started"]),
        "ended": None if record.get("ended") is None else _utc(record["ended"]),
        "seconds": None if took is None else round(took, 1),
        **{f"loss_{key}": loss.get(key) for key in ("first", "last", "least")},
        "dataset": dataset,
        **{f"{task}_{metric}": tables.get(task, {}).get(metric) for task in TASKS for metric in ("AP", "AP50", "AP75")},
        "diagnosis": found.get("id"),
        "diagnosis_line": found.get("line"),
        "diagnosis_text": found.get("text"),
        "verdict": verdict.get("status"),
        "failed_rungs": " ".join(verdict.get("failed", [])),
        "differences": "; ".join(record.get("differences", [])),
        "base_lr": record.get("schedule", {}).get("SOLVER.BASE_LR"),
        "num_gpus": record.get("schedule", {}).get("NUM_GPUS"),
        "gpu_ids": " ".join(map(str, record.get("gpu_ids", []))),
        "gpus": "; ".join(str(gpu.get("name")) for gpu in record.get("gpus", [])),
        "installs": "; ".join(f"{role} {install}" for role, install in record.get("installs", {}).items()),
        "detectron_path": record.get("detectron", {}).get("path"),
        "detectron_commit": record.get("detectron", {}).get("commit"),
        "datasets": "; ".join(f"{name} {value}".strip() for name, value in record.get("datasets", {}).items()),
        "weights": weights.get("path"),
        "weights_sum": weights.get("sha256") or weights.get("md5"),
    }


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
