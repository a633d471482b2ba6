"""The page of playbooks/report.yml in a real browser, opened from its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from tests.browser.conftest import HOSTILE, Browser

SHOWN = HOSTILE.replace("\u202e", "\ufffd")
FITS = "return document.documentElement.scrollWidth <= innerWidth"


def lines(browser: Browser) -> list[str]:
    """Paths of the curves that are drawn, but for those without points."""
    found: list[str] = browser.run(
        "return [...document.querySelectorAll('#drawer .js-line')].map(path => path.getAttribute('d') ?? '')"
    )
    return [path for path in found if path.count("L") + path.count("H") > 5]


def test_a_run_is_opened_by_keyboard_and_its_curves_are_drawn(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.requests() == [(page.as_uri(), "")]
    assert not browser.all("#drawer .js-line")
    browser.run_link("long_gpu1").send_keys(Keys.ENTER)
    browser.until(lambda: len(lines(browser)) == 2)  # loss and learning rate
    assert browser.run("return document.querySelector('#drawer .plot')._fullLayout.yaxis.type") == "log"
    caption = browser.one("#drawer figcaption").text
    assert "at iteration 0" in caption and "least" in caption
    focused = browser.run("return document.activeElement.textContent")
    assert focused == "long_gpu1"
    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    browser.until(lambda: not browser.run("return document.querySelector('#drawer').open"))
    assert browser.run("return document.activeElement.textContent") == "long_gpu1"
    assert browser.console() == []
    assert browser.requests() == []


def test_a_diagnosis_stands_with_its_log_line_cause_and_remedy(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run_link("wild_gpu2").click()
    finding = browser.text("#drawer .finding.fatal")
    for word in ("not a number", "log.txt:", "NaN", "Cause", "Remedy", "Scale the schedule"):
        assert word in finding
    assert "SOLVER.BASE_LR" in browser.one("#drawer .options").text


def test_runs_are_sorted_by_click_and_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page)
    header = next(found for found in browser.all("#table th[aria-sort]") if found.text == "Loss")
    header.find_element("css selector", "button").click()
    assert header.get_attribute("aria-sort") == "descending"
    losses = browser.run(
        "return [...document.querySelectorAll('#table tbody tr')].map(row => row.querySelector('.loss').dataset.value)"
    )
    numbers = [float(loss) for loss in losses if loss]
    assert numbers == sorted(numbers, reverse=True)
    assert losses[len(numbers) :] == [""] * (len(losses) - len(numbers))
    name = next(found for found in browser.all("#table th[aria-sort]") if found.text == "Name")
    name.find_element("css selector", "button").send_keys(Keys.ENTER)
    assert (name.get_attribute("aria-sort"), header.get_attribute("aria-sort")) == ("ascending", "none")
    shown = [found for found in browser.names() if "<" not in found]
    assert shown == sorted(shown)
    name.find_element("css selector", "button").send_keys(Keys.SPACE)
    assert [found for found in browser.names() if "<" not in found] == sorted(shown, reverse=True)
    servers = browser.one("#servers th[aria-sort] button")
    servers.click()
    assert servers.find_element("xpath", "..").get_attribute("aria-sort") == "ascending"


def test_runs_are_filtered_by_words_state_kind_and_server(browser: Browser, page: Path) -> None:
    browser.open(page)
    everything = browser.names()
    search = browser.one("#search")
    search.send_keys("wild gpu2")
    assert browser.names() == ["wild_gpu2"]
    assert browser.one("#shown").text == f"1 of {len(everything)} runs"
    search.send_keys("nothing like it")
    assert browser.names() == []
    browser.one("#reset").click()
    assert browser.names() == everything
    browser.one(".chip[data-state=finished]").send_keys(Keys.SPACE)
    assert set(browser.names()) == {"long_gpu1", "long_gpu2", "photos"}
    assert browser.one(".chip[data-state=finished]").get_attribute("aria-pressed") == "true"
    browser.run("const kind = document.querySelector('#kind'); kind.value = 'inference';"
                "kind.dispatchEvent(new Event('change'))")  # fmt: skip
    assert browser.names() == ["photos"]


def test_runs_that_were_chosen_are_compared(browser: Browser, page: Path) -> None:
    browser.open(page)
    for name in ("long_gpu1", "long_gpu2"):
        box = browser.run_link(name).find_element("xpath", "ancestor::tr").find_element("css selector", ".pick input")
        box.send_keys(Keys.SPACE)
    assert browser.one("#picked").text == "2 runs chosen"
    browser.one("#compare").click()
    browser.until(lambda: len(lines(browser)) == 4)  # loss and learning rate of each
    text = browser.one("#drawer").text
    for word in ("2 runs compared", "NUM_GPUS", "SOLVER.BASE_LR", "coco_2014_minival box AP", "long_gpu2"):
        assert word in text
    rows = {row.text.split()[0] for row in browser.all("#drawer tr.differs")}
    assert {"NUM_GPUS", "SOLVER.BASE_LR"} <= rows
    before = lines(browser)
    browser.one("#scale").send_keys("images")
    browser.until(lambda: len(lines(browser)) == 4 and lines(browser) != before)
    assert browser.console() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_light_or_dark_as_the_system_is_and_as_told(scheme: str, browser: Browser, page: Path) -> None:
    browser.open(page, scheme=scheme)
    ground = "return getComputedStyle(document.body).backgroundColor"
    own = browser.run(ground)
    other = "dark" if scheme == "light" else "light"
    button = browser.one(f".switch [data-theme={other}]")
    button.click()
    told = browser.run(ground)
    browser.open(page, scheme=other)
    browser.one(".switch [data-theme=auto]").click()
    assert told == browser.run(ground) != own
    brightness = [int(part) for part in own[4:-1].split(",")]
    assert (sum(brightness) > 600) == (scheme == "light")


@pytest.mark.parametrize("width", [360, 800, 1440])
def test_nothing_is_wider_than_the_window(width: int, browser: Browser, page: Path) -> None:
    browser.open(page, width)
    assert browser.run(FITS)
    for name in ("long_gpu1", SHOWN[:80] + "… (truncated)" if len(SHOWN) > 80 else SHOWN):
        browser.run("arguments[0].click()", browser.run_link(name))
        browser.until(lambda: browser.all("#drawer .js-line") or not browser.all("#drawer .plot"))
        assert browser.run(FITS)
        assert browser.run("const d = document.querySelector('#drawer'); return d.scrollWidth <= d.clientWidth")
        browser.one("#close").click()


def test_what_hostile_servers_tell_is_shown_as_text(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert SHOWN in browser.run("return document.body.textContent")
    assert "{{ 7 * 7 }}" in browser.one("#table").text
    assert browser.run("return document.querySelectorAll('script, img').length") == 3 + 2  # its own, and the pictures
    browser.run("arguments[0].click()", browser.run_link(SHOWN))
    browser.until(lambda: len(lines(browser)) == 2)
    browser.one("#close").click()
    for box in browser.all(".pick input"):
        browser.run("arguments[0].click()", box)
    browser.one("#compare").click()
    browser.until(lambda: len(lines(browser)) > 10)
    assert not browser.all("[onerror], #drawer img, #drawer a[href^=http]")
    assert browser.run("return document.querySelectorAll('script').length") == 4  # plotly.js is its own as well
    assert browser.console() == []
    assert browser.requests() == [(page.as_uri(), "")]


def test_pictures_are_shown_with_what_was_found_in_them(browser: Browser, page: Path) -> None:
    browser.open(page)
    pictures = browser.all("#pictures img")
    assert all(browser.until(lambda: browser.run("return arguments[0].naturalWidth", pictures[0])) for _ in pictures)
    assert pictures[0].get_attribute("alt") == "a.jpg, 9 detections"


def test_a_server_that_did_not_answer_is_shown_with_its_last_state(browser: Browser, page: Path) -> None:
    browser.open(page)
    row = next(found for found in browser.all("#servers tbody tr") if found.text.startswith("gpu3"))
    assert "no answer" in row.text and "cuda90_wheel" in row.text
    row.find_element("css selector", "a").click()
    assert "It has not answered since" in browser.text("#drawer .finding")
    assert "gpu3" in browser.one(".attention").text


def test_its_policy_forbids_the_network_and_other_scripts(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run("fetch('http://127.0.0.1:9/').catch(() => { window.refused = true; })")
    browser.until(lambda: browser.run("return window.refused"))
    browser.run("new Image().src = 'http://127.0.0.1:9/x.png'")
    browser.run("document.head.append(Object.assign(document.createElement('script'), {text: 'window.attacked = 1'}))")
    browser.run("document.body.insertAdjacentHTML('beforeend', '<a id=x onclick=\"window.attacked = 1\">x</a>')")
    browser.run("document.querySelector('#x').click()")
    assert browser.run("return window.attacked") is None
    assert [url for url, refused in browser.requests() if refused != "csp"] == [page.as_uri()]
    assert sum("Content Security Policy" in said for said in browser.console()) >= 4


def test_tables_and_texts_are_there_without_scripts(browser: Browser, page: Path) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(page)
        assert browser.one("#table tbody tr").is_displayed()
        assert browser.one(".detail .finding").is_displayed()
        assert "Without JavaScript" in browser.one("noscript").text
        assert not browser.one(".tools").is_displayed()
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
