"""What the documentation links to, runs or names exists; the roles' tables say what their defaults say."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LISTED = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
PAGES = sorted(subprocess.run(LISTED, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
# What a reader makes: inventories of their own, and the mirror that playbooks/mirror.yml fills.
THEIRS = re.compile(r"(lock_file=)?my_inventory\b|@?mirror\b")

each_page = pytest.mark.parametrize("page", PAGES)


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def code(page: str) -> Iterator[str]:
    """What a page sets in type: the lines of its blocks, continued ones joined, and its spans in backticks."""
    prose = []
    fenced = False
    for line in text_of(page).replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip()
        else:
            prose.append(line)
    yield from (re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", "\n".join(prose)))


def words_of(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def options(words: list[str], *names: str) -> list[str]:
    """The values of an option, given as two words."""
    return [value for name, value in pairwise(words) if name in names]


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_resolve(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@each_page
def test_make_targets_exist(page: str) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in code(page):
        if line.startswith("make "):
            assert words_of(line)[1] in targets, line


@each_page
def test_playbooks_and_tags_exist(page: str) -> None:
    for line in code(page):
        if not line.startswith(("ansible-playbook ", ".venv/bin/ansible-playbook ")):
            continue
        words = words_of(line)
        for name in [word for word in words if word.endswith(".yml") and not THEIRS.match(word)]:
            assert (ROOT / name).is_file(), line
        for tag in ",".join(options(words, "--tags", "-t")).split(","):
            assert tag in {"", "verify", *ROLES}, line
        for inventory in options(words, "-i", "--inventory"):
            assert THEIRS.match(inventory) or (ROOT / inventory).exists(), line


@each_page
def test_files_of_the_repository_exist(page: str) -> None:
    """Spans that begin with a folder of ours name something in it; <…>, … and * stand for what varies."""
    folders = [path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
    for span in code(page):
        if re.fullmatch(r"[\w./-]+", span) and span.split("/")[0] in folders and "/" in span and not THEIRS.match(span):
            beside = (ROOT / page).parent / span  # a role's README names its own files
            assert (ROOT / span).exists() or beside.exists() or "stack_mine" in span, span


@each_page
def test_variables_exist(page: str) -> None:
    """A word that begins with a role's name is a knob, a parameter, a stack, a plugin, or a check of the ladder."""
    specs = [yaml.safe_load((ROOT / "roles" / role / "meta/argument_specs.yml").read_text()) for role in ROLES]
    known = {name for spec in specs for entry in spec["argument_specs"].values() for name in entry["options"]}
    known |= yaml.safe_load((ROOT / "roles/stack/vars/main.yml").read_text()).keys()
    known |= {"stack_lock", "stack_lookup", "stack_mine"} | {path.name for path in (ROOT / "group_vars").iterdir()}
    known |= {path.stem for path in (ROOT / "plugins").glob("*/*.py")}
    known |= {path.stem for path in (ROOT / "playbooks").glob("*.yml")}
    known |= json.loads((ROOT / "standin/expect.json").read_text())["detectron"].keys()
    known |= {name for _rung, name in checks()}
    # Detectron's names of datasets, which begin as role coco does, folders of COCO's, and names of one's own.
    known |= set(
        re.findall(r'^    "(coco_\w+)', (ROOT / "plugins/module_utils/coco_layout.py").read_text(), re.MULTILINE)
    )
    known |= {f"coco_{name}{year}" for name in ("train", "val", "test") for year in (2014, 2015, 2017)}
    known |= {"coco_", "coco_cells_train", "coco_cells_val"}
    # A play's own keywords are evaluated before any role's variables are known.
    known |= set(re.findall(r"^  serial: ..\{ (\w+)", (ROOT / "playbooks/servers.yml").read_text(), re.MULTILINE))
    prefixes = tuple(f"{role}_" for role in ROLES)
    for span in code(page):
        for word in re.findall(r"(?<![\w./<-])\w+(?![\w./*-])", span):
            assert word in known or not word.startswith(prefixes), f"{word} in {span}"


@pytest.mark.parametrize("role", ROLES)
def test_a_roles_table_has_its_knobs(role: str) -> None:
    defaults = yaml.safe_load((ROOT / "roles" / role / "defaults/main.yml").read_text())
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| ", text_of(f"roles/{role}/README.md"), re.MULTILINE)
    assert [name for name, _ in rows] == list(defaults)
    for name, shown in rows:
        if not (isinstance(defaults[name], str) and "{{" in defaults[name]):
            assert yaml.safe_load(shown.strip("`")) == defaults[name], name


def test_the_readme_names_every_tag_and_every_page() -> None:
    readme = text_of("README.md")
    for role in set(ROLES) - {"stack", "infer", "mirror", "train", "workspace"}:
        assert f"`{role}`" in readme
    for page in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{page.name})" in readme
    for group in (ROOT / "group_vars").iterdir():
        assert f"| `{group.name}` |" in readme


def checks() -> list[tuple[str, str]]:
    """(rung, name) of the check ladder's checks, apart from those of rung `files`, which it makes per role."""
    source = (ROOT / "files/py27/check_ladder.py").read_text()
    return re.findall(r"^@check\('(\w+)'.*\ndef (\w+)\(", source, re.MULTILINE)


def test_the_ladders_page_names_every_rung_and_check() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", text_of("docs/check-ladder.md"), re.MULTILINE)
    assert [rung for rung, _ in rows] == list(dict.fromkeys(["files", *(rung for rung, _ in checks())]))
    for rung, named in rows[1:]:
        assert re.findall(r"`(\w+)`", named) == [name for of, name in checks() if of == rung]
