#!/usr/bin/env python3
"""Gather and show a large fleet on this machine, and print what is sent, how large the page is, and when it is usable.

    .venv/bin/python bench/report.py [--folder FOLDER] [--servers 20] [--runs 10] [--iterations 90000]

Writes prefixes of so many servers, each with so many runs whose logs have Detectron's form (statistics every 20
iterations), into FOLDER, by default a temporary one that is removed. Gathers with the real module report_info, adds 500
iterations to every running log, gathers again, writes the page, and opens it in the system's Chromium. No network.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/fleet"), str(ROOT / "tests/unit")]

import ansible.module_utils  # noqa: E402

ansible.module_utils.__path__.append(str(ROOT / "plugins/module_utils"))

from ansible.module_utils import report_page, report_state  # noqa: E402
from report_fleet import Controller, generations, ladder, run, statistics  # noqa: E402

STATES = (
    "running",
    "finished",
    "finished",
    "failed",
    "stopped",
    "finished",
    "finished",
    "died",
    "finished",
    "finished",
)
NEW = 500  # iterations between two looks


def fleet(top: Path, servers: int, runs: int, iterations: int) -> dict[str, list[str]]:
    """Write all servers; returns the names of those of their runs that go on."""
    working: dict[str, list[str]] = {}
    for server in range(1, servers + 1):
        host = f"gpu{server}"
        prefix = top / host
        generations(prefix, 3)
        ladder(prefix, host, failed="cudnn_cublas" if server % 7 == 0 else "")
        for number in range(runs):
            state, name = STATES[number % len(STATES)], f"e2e_mask_rcnn_{host}_{number}"
            run(prefix, name, state, seed=server * runs + number, top=iterations)
            working.setdefault(host, []).extend([name] if state == "running" else [])
    return working


def gather(controller: Controller, top: Path, working: dict[str, list[str]]) -> tuple[float, int, int]:
    """(seconds, bytes of all questions and answers, bytes of curves among them) of a look at all servers, one after the
    other."""
    started, controller.sent, controller.points = time.monotonic(), [], []
    for host, names in working.items():
        changes = {name: {"state": "running", "left": 3600.0, "progress": "", "findings": []} for name in names}
        controller.look(host, top / host, time.time(), **changes)
    return time.monotonic() - started, sum(controller.sent), sum(controller.points)


def opened(page: Path) -> dict[str, float]:
    """Seconds until Chromium has the page's tables ready, and from a click to a drawn curve."""
    from selenium import webdriver
    from selenium.webdriver.common.by import By

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1440,900"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.get("about:blank")
        driver.get(page.as_uri())
        timing = "performance.getEntriesByType('navigation')[0]"
        ready, loaded = driver.execute_script(f"return [{timing}.domContentLoadedEventEnd, {timing}.loadEventEnd]")
        clicked = time.monotonic()
        driver.find_element(By.CSS_SELECTOR, "#table tbody th a").click()
        while not driver.find_elements(By.CSS_SELECTOR, "#drawer .js-line"):
            time.sleep(0.02)
        return {"ready": ready / 1000, "loaded": loaded / 1000, "curve": time.monotonic() - clicked}
    finally:
        driver.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--servers", type=int, default=20)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=90000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        top = given.folder or Path(temporary)
        working = fleet(top, given.servers, given.runs, given.iterations)
        logs = sum(path.stat().st_size for path in top.glob("*/runs/*/log.txt"))
        print(f"{given.servers} servers, {given.servers * given.runs} runs, logs of {logs / 1e6:.0f} MB")
        controller = Controller(top / "state")
        for look in ("first", "second"):
            seconds, sent, curves = gather(controller, top, working)
            print(
                f"{look} look: {sent / 1e6:.2f} MB both ways, of which curves {curves / 1e3:.1f} kB, in {seconds:.0f} s"
            )
            for host, names in working.items():
                for name in names if look == "first" else ():
                    with (top / host / "runs" / name / "log.txt").open("a") as log:
                        log.write(statistics(given.iterations, given.iterations + NEW, 0.02, given.iterations))
        now, started = time.time(), time.monotonic()
        states = [report_state.load(controller.folder, host) for host in working]
        page = top / "index.html"
        page.write_text(
            report_page.page(report_page.view(states, working, now), ROOT / "files/report", now, "bench"),
            encoding="utf-8",
        )
        print(f"page: {page.stat().st_size / 1e6:.2f} MB, written in {time.monotonic() - started:.1f} s")
        found = opened(page)
        print(
            f"Chromium: tables usable after {found['ready']:.2f} s, loaded after {found['loaded']:.2f} s, "
            f"first curve {found['curve']:.2f} s after the click"
        )


if __name__ == "__main__":
    main()
