"""Finds what a lock lacks, shows whose word each value is, and writes the completed lock. On the controller alone."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

import yaml  # noqa: E402
from ansible.errors import AnsibleActionFail  # noqa: E402
from ansible.module_utils.lock_conda import find_closure  # noqa: E402
from ansible.module_utils.lock_text import Gap, filled, gaps, without  # noqa: E402
from ansible.module_utils.lock_values import Files, Repositories  # noqa: E402
from ansible.module_utils.parsing.convert_bool import boolean  # noqa: E402
from ansible.module_utils.stack_fetch import NO_ANSWER, Upstream  # noqa: E402
from ansible.module_utils.stack_installs import StackError  # noqa: E402
from ansible.plugins.action import ActionBase  # noqa: E402

SHOW_EVERY = 5.0  # seconds between two lines of progress

Found = list[tuple[Gap, dict[str, Any]]]


class ActionModule(ActionBase):
    """Arguments: lock, mirror, write, pypi_index, debian_mirror (see the module's documentation)."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._shown = time.monotonic()
        given = self._task.args
        lock = Path(given["lock"]).expanduser().absolute()
        try:
            text = lock.read_text(encoding="utf-8")
            lacking = gaps(text)
        except (OSError, ValueError, StackError) as error:
            raise AnsibleActionFail(f"{lock} is not a lock. {error}") from error
        if not lacking:
            return self._said([f"{lock} lacks nothing."], changed=False, lock="")
        if self._task.check_mode:
            return self._said([f"{gap.name} lacks {', '.join(gap.lacks)}." for gap in lacking], changed=True, lock="")
        found, removed, report, unknown = self._found(lacking, yaml.safe_load(text)["stack_lock"], given)
        result: dict[str, Any] = {"changed": False, "report": report, "lock": ""}
        completed = without(filled(text, found), removed)
        if completed != text:
            target = lock if boolean(given.get("write", False)) else lock.with_name(f"{lock.name}.new")
            written = _write(target, completed, like=lock)
            result |= {"changed": written, "lock": str(target)}
            result["diff"] = {
                "before": text,
                "after": completed,
                "before_header": str(lock),
                "after_header": str(target),
            }
            self._display.display(f"Written: {target}.")
            if target != lock:
                self._display.display(f"Review it, then: mv {target} {lock}")
        if unknown:
            result |= {"failed": True, "msg": f"{lock} still lacks what could not be found. {' '.join(unknown)}"}
        return result

    def _found(
        self, lacking: list[Gap], lock: dict[str, Any], given: dict[str, Any]
    ) -> tuple[Found, list[str], list[str], list[str]]:
        """What was found, what it makes needless, a line about each, and a sentence for each that was not found."""
        mirror = Path(given["mirror"]).expanduser()
        upstream = Upstream(given.get("pypi_index", ""), given.get("debian_mirror", ""))
        files, repositories = Files(mirror, upstream, self._show), Repositories(mirror)
        found: Found = []
        removed: list[str] = []
        report, unknown = [], []
        for gap in lacking:
            wanted = tuple(key for key in gap.lacks if key not in ("licence", "source"))
            if len(wanted) < len(gap.lacks):
                unknown.append(f"{gap.name}: write its {', '.join(set(gap.lacks) - set(wanted))}; nothing tells it.")
            try:
                if "specs" in gap.values:
                    values, lines, twice = find_closure(lock, files)
                    found.append((gap, values))
                    removed += [f"caffe2.packages[{number}]" for number in twice]
                    report += self._shown_lines([f"{gap.name}: {line}." for line in lines])
                    if untold := [entry["filename"] for entry in values["inputs"] if entry["licence"] is None]:
                        unknown.append(f"{gap.name}: write the licence of {', '.join(untold)}; no channel tells it.")
                    continue
                if "repository" in gap.values:
                    values, word = repositories.find(gap.values, wanted, gap.where.rpartition(".")[2])
                elif wanted:
                    values, word = files.find(gap.values)
                else:
                    continue
            except (StackError, *NO_ANSWER) as error:
                unknown.append(f"{gap.name}: {error}.")
                continue
            values = {key: values[key] for key in wanted}
            found.append((gap, values))
            line = f"{gap.name}: {', '.join(f'{key} {value}' for key, value in values.items())}; {word}."
            report += self._shown_lines([line])
        return found, removed, report, unknown

    def _said(self, report: list[str], **result: Any) -> dict[str, Any]:
        return {"report": self._shown_lines(report), **result}

    def _shown_lines(self, lines: list[str]) -> list[str]:
        for line in lines:
            self._display.display(line)
        return lines

    def _show(self, name: str, have: int, size: int) -> None:
        now = time.monotonic()
        if now - self._shown >= SHOW_EVERY:
            self._shown = now
            percent = 100 * have // max(size, 1)
            self._display.display(f"{name}: downloaded {have / 1e6:.0f} of {size / 1e6:.0f} MB ({percent} %)")


def _write(target: Path, text: str, like: Path) -> bool:
    """Write `text` to `target` by rename, with the mode of the file `like`. Whether that changed anything."""
    if target.is_file() and target.read_text(encoding="utf-8") == text:
        return False
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    shutil.copymode(like, draft)
    os.replace(draft, target)
    return True
