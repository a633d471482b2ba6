"""All datasets of a server: what was checked before and still holds, what is checked now, and some side by side.

Runs on servers: Python >= 3.9, standard library only.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from ansible.module_utils.coco_check import COCO_BEGINNING, Checked, Checker, Report, fingerprint, holds
from ansible.module_utils.coco_findings import BY_ID, Findings
from ansible.module_utils.coco_layout import Source, find, own
from ansible.module_utils.stack_installs import StackError

SEVERITIES = ("stop", "warn", "info")
COMPARED = 10  # images with the same name and size, whose bytes are compared


def check_all(path: str, datasets: list[Mapping[str, Any]], known: Mapping[str, Any], deep: bool) -> dict[str, Any]:
    """Find and check everything: {"reports": by name, "pairs": of two names, "path": of the folder}.

    `known` is what an earlier run returned; with `deep` all is read again, and only what differs is new. Raises
    StackError for datasets that cannot be.
    """
    mine = own(datasets)
    found, folder = find(path) if path else ([], Findings())
    names = {source.name for source in mine}
    sources = [source for source in found if source.name not in names] + mine
    checked: dict[str, Checked] = {}

    def checked_now(source: Source) -> Checked:
        if source.name not in checked:
            checked[source.name] = Checker(source).check()
        return checked[source.name]

    reports: dict[str, Report] = {}
    for source in sources:
        before = known.get("reports", {}).get(source.name, {})
        if deep or not holds(before, source):
            report = checked_now(source).report
            reports[source.name] = before if same(before, report) else report
        else:
            reports[source.name] = before
    pairs = {}
    for first, second in combinations(sources, 2):
        if not (first.own or second.own):
            continue  # how the sets of Detectron's catalogue overlap is known
        name = f"{first.name} {second.name}"
        sums = [fingerprint(reports[source.name]) for source in (first, second)]
        before = known.get("pairs", {}).get(name, {})
        if before.get("fingerprints") == sums:
            pairs[name] = before
        else:
            findings = Findings()
            compare_classes(findings, reports[first.name], reports[second.name])
            if {"train", "test"} <= {use_of(first.name), use_of(second.name)}:
                compare_images(findings, checked_now(first), checked_now(second))
            pairs[name] = {"fingerprints": sums, "findings": findings.result()}
    return {"reports": reports, "pairs": pairs, "path": {"path": path, "findings": folder.result()}}


def same(before: Report, after: Report) -> bool:
    """Whether two reports say the same, if in another time."""
    return {**before, "seconds": 0} == {**after, "seconds": 0}


def use_of(name: str) -> str:
    """What a dataset is for, by its name; "" where it does not say so."""
    if "train" in name or "valminusminival" in name:
        return "train"
    return "test" if "val" in name or "test" in name else ""


def compare_classes(findings: Findings, first: Report, second: Report) -> None:
    """The same categories in another order are other classes."""
    one, two = first["class_names"], second["class_names"]
    if one != two and sorted(one) == sorted(two):
        place = next(place for place, (a, b) in enumerate(zip(one, two)) if a != b)
        findings.add(
            "classes_differ", f"class {place + 1} is {one[place]} in {first['name']}, {two[place]} in {second['name']}"
        )


def compare_images(findings: Findings, first: Checked, second: Checked) -> None:
    """The same images, whatever their folder and COCO's beginning of their names."""

    def identity(name: str, size: int) -> tuple[str, int]:
        return COCO_BEGINNING.sub("", os.path.basename(name)), size

    others = {identity(name, size): name for name, size in second.files.items() if size}
    common = [
        (name, others[identity(name, size)]) for name, size in first.files.items() if identity(name, size) in others
    ]

    def equal(names: tuple[str, str]) -> bool:
        one, two = (os.path.join(side.report["image_directory"], name) for side, name in zip((first, second), names))
        try:
            return os.path.samefile(one, two) or filecmp.cmp(one, two, shallow=False)
        except OSError:
            return False

    if any(map(equal, common[:COMPARED])):
        for name, _other in common:
            findings.add("overlap", name)


def unfit(name: str, known: Mapping[str, Any], masks: bool, keypoints: bool, tested: bool) -> str:
    """Why a model cannot be trained or `tested` on a dataset; "" when it can.

    `known`: a server's datasets.json. What a person has accepted stops nothing.
    """
    report = known["reports"].get(name, {})
    usable = name in known["datasets"]
    broken = {"masks"} if masks else set()
    broken |= {"mask_evaluation"} if masks and tested else set()
    for finding in report.get("findings", []):
        stops = not usable and finding["severity"] == "stop"
        # Of COCO's own sets, what is info has never kept anybody from them.
        breaks = finding["breaks"] in broken and (finding["severity"] != "info" or finding["id"] == "mask_none")
        if stops or breaks:
            return f"{finding['title']} ({finding['id']}): {finding['what']}. {finding['cause']} {finding['remedy']}"
    if keypoints and report.get("counts", {}).get("keypoints") == 0 and "test" not in name:
        return "none of its annotations has keypoints. Use one of COCO's with keypoints_ in its name, or one like it."
    return ""


def other_classes(names: Sequence[str], known: Mapping[str, Any]) -> str:
    """Which of some datasets has other categories than the first, or in another order; "" when none has."""
    listed = {
        name: known["reports"][name]["class_names"] for name in names if "class_names" in known["reports"].get(name, {})
    }
    for name, classes in listed.items():
        first, wanted = next(iter(listed.items()))
        if len(classes) != len(wanted):
            return f"{first} has {len(wanted)} categories, {name} has {len(classes)}"
        for place, (one, other) in enumerate(zip(wanted, classes)):
            if one != other:
                return f"class {place + 1} is {one} in {first}, and {other} in {name}"
    return ""


def listed(result: Mapping[str, Any], accepted: Collection[str]) -> list[dict[str, Any]]:
    """All findings that are not accepted, each with its `dataset` ("" for the folder itself), what stops first."""
    unknown = set(accepted) - BY_ID.keys()
    if unknown:
        raise StackError(f"There is no finding {', '.join(sorted(unknown))} to accept. There are: {', '.join(BY_ID)}.")

    def everything() -> Iterator[tuple[str, dict[str, Any]]]:
        yield from (("", finding) for finding in result["path"]["findings"])
        for name, report in [*result["reports"].items(), *result["pairs"].items()]:
            yield from ((name, finding) for finding in report["findings"])

    found = [{"dataset": name, **finding} for name, finding in everything() if finding["id"] not in accepted]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding["severity"]))


def usable(result: Mapping[str, Any], findings: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """The entries for Detectron's catalogue: of all datasets that nothing stops."""
    stopped = {name for finding in findings if finding["severity"] == "stop" for name in finding["dataset"].split()}
    keys = ("image_directory", "annotation_file", "image_prefix")
    return {
        name: {key: report[key] for key in keys} for name, report in result["reports"].items() if name not in stopped
    }
