"""The page in a real browser: no complaint, everything visible, nothing wider than the window."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import pytest

from fedpost.report import write_report
from fedpost.telemetry import JsonLinesSink, Telemetry

pytest.importorskip("selenium", reason="needs selenium")
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By

BROWSER = Path(os.environ.get("FEDPOST_CHROMIUM", "/usr/bin/chromium"))
DRIVER = shutil.which("chromedriver") or "/usr/bin/chromedriver"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not BROWSER.exists() or not Path(DRIVER).exists(), reason="needs chromium and chromedriver"),
]
HOSTILE = "<script>document.title = 'taken'</script>"
LONG = "a-site-with-a-very-long-name-" * 8


def ledger(path: Path, rounds: int, sites: int) -> Path:
    """A run that learns; its first sites have a hostile and a very long name."""
    names = [HOSTILE, LONG, *(f"site-{number}" for number in range(sites))][:sites]
    with JsonLinesSink(path) as sink:
        telemetry = Telemetry(sink)
        telemetry.event(
            "run_started",
            {"run": "r", "name": f"digits {HOSTILE}", "rounds": rounds, "update": "delta | topk(0.01) | quantize(8)"},
        )
        for number in range(rounds + 1):
            in_round = telemetry.labelled(round=number)
            measured = {"accuracy": 0.96 - 0.66 * math.exp(-number / 4), "loss": 2.3 * math.exp(-number / 5)}
            if number:
                in_round.event("round_started", {"sites": sites, "attempt": 1})
                in_round.spent("wait", 1.0)
                for name in names:
                    at_site = in_round.labelled(site=name)
                    at_site.transfer("down", "fit", f"weights.{LONG}", raw=40_000, stored=36_000)
                    at_site.transfer("up", "result", f"weights.{LONG}", raw=40_000, stored=700)
                    at_site.spent("train", 0.8)
                    at_site.event("result_accepted", {"examples": 100})
                in_round.labelled(site=LONG).event("result_refused", {"reason": f"{HOSTILE} {LONG}"})
            in_round.event("round_ended", {**measured, "sites": sites, "seconds": 1.1})
        telemetry.event("run_ended", {"status": "finished", "seconds": 1.1 * rounds})
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "disable-dev-shm-usage",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=ChromeService(executable_path=DRIVER))
    yield driver
    driver.quit()


@pytest.mark.parametrize(("rounds", "sites"), [(20, 8), (100, 100), (1, 2)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page(browser, tmp_path, rounds, sites, scheme):
    page = tmp_path / "page.html"
    write_report(ledger(tmp_path / "ledger.jsonl", rounds, sites), page)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    assert browser.title == f"digits {HOSTILE} · fedpost run report"
    for width in (1280, 390):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.execute_script("return document.body.scrollWidth") <= width
        tiles = browser.find_elements(By.CSS_SELECTOR, ".tiles > div")
        plots = browser.find_elements(By.CSS_SELECTOR, "figure svg")
        assert (len(tiles), len(plots)) == (8, 4)
        for element in (browser.find_element(By.TAG_NAME, "h1"), *tiles, *plots):
            assert element.is_displayed()
            assert min(element.size["width"], element.size["height"]) > 0
        assert all(plot.size["width"] > 0.7 * min(width / 2, 390) for plot in plots)
    ink = browser.execute_script("return getComputedStyle(document.querySelector('figure svg text')).fill")
    assert (sum(map(int, ink[4:-1].split(","))) > 384) == (scheme == "dark")
    first = browser.find_element(By.CSS_SELECTOR, "#rounds ~ details")
    assert (first.get_attribute("open") is None) == (rounds > 24)
