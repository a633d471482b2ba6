#!/usr/bin/env python3
"""Obstacles on the terminal: a throwaway server, and one short scene each.

    show.py --state FOLDER --start     start the server, unless it runs, and write its inventory
    show.py --state FOLDER [ID …]      once it is provisioned, show all obstacles, or these

The exit status is 1 when an obstacle could not be reproduced, or stopped the stack.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "tests/fleet")]

from fleet import Fleet, locked  # noqa: E402

from tests.obstacles.account import hostile_site  # noqa: E402
from tests.obstacles.catalogue import Obstacle, catalogue  # noqa: E402
from tests.obstacles.stage import Scene, Stage  # noqa: E402

BOLD, RED, GREEN, DIM = "1", "31", "32", "2"


class Terminal:
    """Paragraphs with a label before them, as wide as the terminal, in colours where it shows them."""

    def __init__(self) -> None:
        self.width = min(shutil.get_terminal_size((100, 0)).columns, 120)
        self.colours = sys.stdout.isatty()

    def paint(self, text: str, style: str) -> str:
        return f"\033[{style}m{text}\033[0m" if self.colours and text else text

    def paragraph(self, label: str, text: str, style: str = "") -> None:
        lead = " " * 12
        lines = textwrap.wrap(text, self.width - len(lead), break_on_hyphens=False)
        for number, line in enumerate(lines):
            before = f"  {label:<10}" if number == 0 else lead
            print(self.paint(before, DIM) + (self.paint(line, style) if style else line), flush=True)


def announce(terminal: Terminal, obstacle: Obstacle, place: str) -> None:
    print(f"\n{terminal.paint(place, DIM)}{terminal.paint(obstacle.title, BOLD)}", flush=True)


def show(terminal: Terminal, scene: Scene) -> None:
    obstacle = scene.obstacle
    said = [line for line in scene.without.output.splitlines() if obstacle.error in line]
    if said:
        terminal.paragraph("without", said[-1].strip(), RED)
    terminal.paragraph("cause", obstacle.cause)
    if obstacle.simulated:
        terminal.paragraph("simulated", obstacle.simulated)
    terminal.paragraph("with us", obstacle.remedy)
    if obstacle.finding:
        terminal.paragraph("doctor", f"shows it as {obstacle.finding}")
    if scene.complaint:
        terminal.paragraph("FAILED", scene.complaint.splitlines()[0], RED)
        print(textwrap.indent("\n".join(scene.complaint.splitlines()[1:]), " " * 12))
    elif scene.with_:
        terminal.paragraph("shown by", scene.with_.last_line.strip(), GREEN)


def table(terminal: Terminal, scenes: list[Scene], seconds: list[float]) -> None:
    """The summary."""
    print(f"\n{terminal.paint('  time  obstacle', DIM)}")
    for scene, time in zip(scenes, seconds, strict=True):
        word, style = ("FAILED", RED) if scene.complaint else ("defeated", GREEN)
        kind = "simulated" if scene.obstacle.simulated else "real"
        print(f"{time:4.0f} s  {terminal.paint(f'{word:<8}', style)}  {kind:<9}  {scene.obstacle.title}")
    failed = sum(bool(scene.complaint) for scene in scenes)
    print(f"{sum(seconds):4.0f} s  {len(scenes)} obstacles, {len(scenes) - failed} reproduced and defeated")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, required=True, help="state folder of fleet.py")
    known = {obstacle.id: obstacle for obstacle in catalogue()}
    parser.add_argument("--start", action="store_true", help="start the server, and show nothing")
    parser.add_argument("ids", nargs="*", metavar="ID", help=f"only these of {', '.join(known)}")
    options = parser.parse_args()
    if unknown := [name for name in options.ids if name not in known]:
        parser.error(f"no obstacle {' or '.join(unknown)}. There are: {', '.join(known)}")
    with locked(options.state):
        site = hostile_site(Fleet(options.state))
    if options.start:
        return 0
    stage = Stage(site)
    terminal = Terminal()
    chosen = [known[name] for name in options.ids] or list(known.values())
    scenes, seconds = [], []
    for number, obstacle in enumerate(chosen, start=1):
        announce(terminal, obstacle, f"{number}/{len(chosen)}  ")
        scenes.append(stage.play(obstacle))
        seconds.append(scenes[-1].seconds)
        show(terminal, scenes[-1])
    table(terminal, scenes, seconds)
    return 1 if any(scene.complaint for scene in scenes) else 0


if __name__ == "__main__":
    sys.exit(main())
