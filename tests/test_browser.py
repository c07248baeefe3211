"""The page of a plan in Chromium: nothing leaves it, what is pointed at is named, source text stays text.

Run by `make test-browser`; the browser is the system's, driven without a network.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pictures
import pytest

import ckad
from ckad.picture.view import shown

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.fail("there is no Chromium; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        # Its sandbox does not work for root, whom servers of integration are.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page, and what went wrong on it."""

    def __init__(self, browser: Any, file: Path, scheme: str = "light", width: int = 1200) -> None:
        context = browser.new_context(
            offline=True, color_scheme=scheme, viewport={"width": width, "height": 900}, locale="en"
        )
        self.page: Any = context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.uri = file.as_uri()

    def point(self, selector: str, across: float, down: float) -> str:
        """Moves the pointer onto an element; what the hint then says."""
        element = self.page.locator(selector)
        element.scroll_into_view_if_needed()
        box = element.bounding_box()
        self.page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
        return self.hint()

    def hint(self) -> str:
        hint = self.page.locator("#hint")
        return hint.inner_text() if hint.is_visible() else ""

    def close(self) -> None:
        """Nothing went wrong, and nothing was asked for but the page itself."""
        assert self.complaints == []
        assert [request for request in self.requests if not request.startswith("about:")] == [self.uri]
        self.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 480])
def test_the_page_shows_the_plan(browser: Any, tmp_path: Path, scheme: str, width: int) -> None:
    plan = pictures.net(memory_limit="2MiB")
    plan.to_html(tmp_path / "plan.html")
    opened = Opened(browser, tmp_path / "plan.html", scheme, width)
    text = opened.page.locator("body").inner_text()
    assert "pictures.py:" in text
    assert "x = np.tanh(x @ weight)" in text
    for part in plan.parts:
        assert part in text
    for chart in ("timeline", "places", "frontier"):
        box = opened.page.locator(f"svg.{chart}").bounding_box()
        assert box["width"] > 250
        assert box["height"] > 50
    # Nothing is wider than the window.
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(int(part) for part in ground[4:-1].split(",")) > 3 * 128
    assert light == (scheme == "light")
    opened.close()


def test_what_is_pointed_at_is_named(browser: Any, tmp_path: Path) -> None:
    plan = pictures.net(checkpoint="sqrt")
    plan.to_html(tmp_path / "plan.html")
    opened = Opened(browser, tmp_path / "plan.html")
    timeline = plan.timeline(600, 9)
    for across in (0.2, 0.5, 0.8):
        hint = opened.point("svg.timeline", across, 0.5)
        step = (1000 * across - 74) / (986 - 74) * timeline["steps"]
        column = max(index for index, first in enumerate(timeline["first_step"]) if first <= step)
        assert f"step {timeline['step'][column]} of {timeline['steps'] - 1}" in hint.replace(",", "")
        assert "pictures.py:" in hint
        assert "x = np.tanh(x @ weight)" in hint
        assert f"live {ckad.errors.in_units(timeline['live'][column])}" in hint
        for name, held in zip(timeline["lines"], timeline["held"], strict=False):
            if held[column]:
                assert f":{name[1]}\n{ckad.errors.in_units(held[column])}" in hint
    assert opened.point("svg.places", 0.5, 0.5)
    assert "this plan: " in opened.point("svg.frontier circle.own", 0.5, 0.04)
    for index in (0, -1):
        limit = f"memory_limit={plan.frontier()[index].peak_bytes}"
        assert limit in opened.point(f"svg.frontier circle.point >> nth={index}", 0.5, 0.5)
    opened.page.mouse.move(5, 5)
    assert opened.hint() == ""
    # By keys, too.
    opened.page.locator("svg.timeline").focus()
    opened.page.keyboard.press("End")
    assert "the results are there" in opened.hint()
    opened.page.keyboard.press("Home")
    assert "step 0 of" in opened.hint()
    # A line of the legend is shown by itself.
    opened.page.locator(".legend li[data-row]").first.hover()
    assert opened.page.locator("#run.dim").count() == 1
    opened.close()


def test_source_text_is_text(browser: Any, tmp_path: Path) -> None:
    plan = pictures.hostile()
    plan.to_html(tmp_path / "plan.html")
    opened = Opened(browser, tmp_path / "plan.html")
    assert "run" not in opened.page.title()
    assert opened.page.locator("script").count() == 2
    assert opened.page.locator("img, main b:not(.cards b), main script").count() == 0
    codes = opened.page.locator("td code").all_inner_texts()
    for line in (pictures.HOSTILE, pictures.HIDDEN, pictures.LONG):
        assert shown(line) in codes
    assert any("\\u202e" in code and "漢字 🌱" in code for code in codes)
    assert "<script>document.title='run'</script>'&.py:3" in opened.page.locator("main").inner_text()
    for across in (0.15, 0.3, 0.45, 0.6, 0.75, 0.9):
        assert "<script>document.title='run'</script>'&.py:" in opened.point("svg.timeline", across, 0.5)
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.close()


def test_a_long_program_stays_responsive(browser: Any, tmp_path: Path) -> None:
    plan = pictures.long(102_000)
    plan.to_html(tmp_path / "plan.html")
    assert plan.timeline()["steps"] > 100_000
    assert (tmp_path / "plan.html").stat().st_size < 2 << 20
    began = time.perf_counter()
    opened = Opened(browser, tmp_path / "plan.html")
    assert time.perf_counter() - began < 10
    box = opened.page.locator("svg.timeline").bounding_box()
    began = time.perf_counter()
    for move in range(100):
        opened.page.mouse.move(box["x"] + box["width"] * (0.1 + 0.008 * move), box["y"] + 50)
    assert "of " in opened.hint()
    assert time.perf_counter() - began < 10
    # What a move costs the page itself.
    cost = opened.page.evaluate(
        """() => {
            const chart = document.querySelector("svg.timeline"), box = chart.getBoundingClientRect();
            const began = performance.now();
            for (let move = 0; move < 500; move += 1)
                chart.dispatchEvent(new PointerEvent("pointermove",
                    { clientX: box.left + box.width * (0.1 + 0.0016 * move), clientY: box.top + 50 }));
            return (performance.now() - began) / 500;
        }"""
    )
    assert cost < 16
    opened.close()


def test_a_notebook_shows_the_page_in_a_frame_of_its_own(browser: Any, tmp_path: Path) -> None:
    plan = pictures.hostile()
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><title>notebook</title><p id='mine'>text</p>{plan._repr_html_()}")
    opened = Opened(browser, notebook)
    frame = opened.page.frame_locator("iframe")
    frame.locator("svg.timeline").hover(position={"x": 400, "y": 100})
    assert "step " in frame.locator("#hint").inner_text()
    # Its style is its own, and so is its world.
    assert opened.page.locator("body").evaluate("element => getComputedStyle(element).maxWidth") == "none"
    assert opened.page.evaluate("document.querySelector('iframe').contentDocument") is None
    assert opened.page.title() == "notebook"
    opened.close()
