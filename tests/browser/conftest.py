"""A page about a small fleet, among it what hostile servers tell, and the system's Chromium to look at it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

ROOT = Path(__file__).resolve().parents[2]
ansible.module_utils.__path__.append(str(ROOT / "plugins/module_utils"))

from ansible.module_utils import report_page, report_state  # noqa: E402
from report_fleet import Controller, generations, inference, ladder, run  # noqa: E402

PATIENCE = 60.0  # seconds, on a busy machine
# An image of 8 by 6 pixels.
JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8X"
    "GBYUGBIUFRT/2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBT/wAARCAAG"
    "AAgDASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAj/xAAUEAEAAAAAAAAAAAAAAAAAAAAA/8QAFAEBAAAAAAAAAAAAAAAAAAAAAP/EABQR"
    "AQAAAAAAAAAAAAAAAAAAAAD/2gAMAwEAAhEDEQA/AJVAB//Z"
)
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)\u2215script> {{ 7 * 7 }} \u202eevil"


class Browser:
    """Chromium, and what a test asks of it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, page: Path, width: int = 1440, height: int = 900, scheme: str = "light") -> Browser:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get("about:blank")
        self.log("browser")
        self.log("performance")
        self.driver.get(page.as_uri())
        return self

    def run(self, program: str, *arguments: Any) -> Any:
        return self.driver.execute_script(program, *arguments)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def until(self, condition: Callable[[], Any]) -> Any:
        """What a condition gives once it holds."""
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert time.monotonic() < deadline, f"It does not come to hold: {self.console()}"
            time.sleep(0.05)
        return found

    def log(self, name: str) -> list[Any]:
        """What a log of the browser has had since it was asked for last."""
        return list(self.driver.get_log(name))  # type: ignore[no-untyped-call]

    def console(self) -> list[str]:
        """What the console says."""
        return [entry["message"] for entry in self.log("browser")]

    def text(self, selector: str) -> str:
        """The text of an element, once it is seen: the drawer comes in slowly."""
        return str(self.until(lambda: any(found.text for found in self.all(selector)) and self.one(selector).text))

    def requests(self) -> list[tuple[str, str]]:
        """(address, "" or why it was not sent) of all requests, but for what the page itself holds."""
        messages = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        found = {
            said["params"]["requestId"]: said["params"]["request"]["url"]
            for said in messages
            if said["method"] == "Network.requestWillBeSent"
        }
        refused = {
            said["params"]["requestId"]: said["params"].get("blockedReason", "")
            for said in messages
            if said["method"] == "Network.loadingFailed"
        }
        return [
            (url, refused.get(request, ""))
            for request, url in found.items()
            if not url.startswith(("data:", "blob:", "about:"))
        ]

    def run_link(self, name: str) -> WebElement:
        return next(link for link in self.all("#table tbody th a") if link.text == name)

    def names(self) -> list[str]:
        """Names of the runs that are shown, in their order."""
        shown: list[str] = self.run(
            "return [...document.querySelectorAll('#table tbody tr:not([hidden]) th a')].map(a => a.textContent)"
        )
        return shown


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    profile = tmp_path_factory.mktemp("chromium")
    for argument in ("--headless=new", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium as root refuses to start with it
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, written from what the real module tells of prefixes on this machine."""
    top = tmp_path_factory.mktemp("fleet")
    controller, now = Controller(top / "state"), time.time()
    for place, host in enumerate(("gpu1", "gpu2")):
        prefix = top / host
        generations(prefix)
        ladder(prefix, host, failed="operator" if place else "")
        run(prefix, f"long_{host}", "finished", seed=1 + place, top=20000)
        run(prefix, f"wild_{host}", "failed", seed=3 + place, top=20000)
        run(prefix, f"busy_{host}", "running", seed=5 + place, top=20000)
    inference(top / "gpu1", "photos", [("a.jpg", JPEG), (HOSTILE.replace("/", ""), JPEG)], seed=9)
    hostile = run(top / "gpu2", HOSTILE, "failed", seed=10, top=20000, config=HOSTILE * 100, since=HOSTILE)
    with (hostile / "log.txt").open("a") as log:
        log.write(f"Error: </script><script>alert(3)</script>{HOSTILE}{'x' * 2**20}\n")
    for host in ("gpu1", "gpu2"):
        working = {"state": "running", "here": True, "left": 3600.0 * len(host), "progress": "iteration 6000"}
        controller.look(host, top / host, now, **{f"busy_{host}": working})
    lost = {**report_state.load(controller.folder, "gpu2"), "host": "gpu3", "runs": {}}
    states = [report_state.load(controller.folder, host) for host in ("gpu1", "gpu2")]
    states.append(report_state.unanswered(lost, f"ssh: {HOSTILE}", now - 7200))
    states.append(report_state.new(HOSTILE))
    view = report_page.view(states, ["gpu1", "gpu2", "gpu3"], now)
    path = top / "index.html"
    path.write_text(report_page.page(view, ROOT / "files/report", now, HOSTILE), encoding="utf-8")
    return path
