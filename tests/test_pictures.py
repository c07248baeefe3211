"""Pictures of a plan: one page and a PNG file from the same figures. What a browser makes of the page is tested in
`test_browser.py`."""

from __future__ import annotations

import html.parser
import json
import re
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import pytest

import ckad
from ckad.picture.view import view


class Reader(html.parser.HTMLParser):
    """What is on a page: its elements, its text, its data."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "rect", "line", "path", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "line", "path", "circle"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.setdefault(self.open[-1], []).append(data)


@pytest.mark.parametrize("options", [{}, {"checkpoint": "sqrt"}, {"memory_limit": "1MiB"}], ids=str)
def test_the_page_needs_nothing_else(options: dict[str, Any], tmp_path: Path) -> None:
    plan = pictures.net(**options)
    page = plan.to_html()
    plan.to_html(tmp_path / "plan.html")
    assert (tmp_path / "plan.html").read_text(encoding="utf-8") == page == plan.to_html(None)
    read = Reader(page)
    assert read.open == []
    # Nothing to be fetched, no style or script that the policy does not name by its hash.
    names = {name for _, attributes in read.elements for name in attributes}
    assert names.isdisjoint({"src", "href", "style", "onload", "srcset", "action", "data"})
    assert not re.search(r"url\(|@import|https?:|//[a-z]", page.replace("default-src 'none'", ""))
    (policy,) = (a["content"] for tag, a in read.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; style-src 'sha256-")


def test_the_figures_are_the_plans() -> None:
    plan = pictures.net(memory_limit="1MiB")
    read = Reader(plan.to_html())
    data = json.loads(read.text["script"][0])
    timeline = plan.timeline(600, 9)
    for name in ("steps", "step", "first_step", "live", "allocated", "held"):
        assert data[name] == timeline[name]
    assert max(data["live"]) == plan.live_bytes
    text = " ".join(part for parts in read.text.values() for part in parts)
    sizes = [plan.peak_bytes, 1 << 20, *plan.parts.values(), *(cost.peak_bytes for cost in plan.lines)]
    for size in sizes:
        assert ckad.errors.in_units(size) in text
    points = [a for tag, a in read.elements if tag == "circle" and a["class"] == "point"]
    assert len(points) == len(plan.frontier())
    for point, attributes in zip(plan.frontier(), points, strict=True):
        assert f"memory_limit={point.peak_bytes}" in str(attributes["data-text"])
        assert str(attributes["data-text"]).startswith(point.policy)
    segments = [a for tag, a in read.elements if a.get("class") == "again"]
    assert len(segments) == len(view(plan).recomputed) >= 1


def test_source_text_is_escaped() -> None:
    plan = pictures.hostile()
    page = plan.to_html()
    read = Reader(page)
    assert [tag for tag, _ in read.elements].count("script") == 2
    assert "img" not in {tag for tag, _ in read.elements}
    assert any("alert(1)" in code for code in read.text["code"])
    assert "\u202e" not in page
    assert "\u200b" not in page
    assert len(page) < 100_000
    data = json.loads(read.text["script"][0])
    assert any("</style></script>" in source for _, source in data["labels"])
    # In a frame it is an attribute, and nothing but that.
    framed = Reader(plan._repr_html_())
    ((tag, attributes),) = framed.elements
    assert (tag, attributes["sandbox"], attributes["srcdoc"]) == ("iframe", "allow-scripts", page)


def test_text_that_no_file_can_hold_is_shown() -> None:
    source = "def f(x):\n    return np.sum(np.sin(x))\n"
    scope: dict[str, Any] = {"np": np}
    exec(compile(source, "no \udcff name.py", "exec"), scope)
    page = ckad.plan(scope["f"])(np.ones(3)).to_html()
    assert "line unknown" in page
    page.encode()


def test_arrays_made_while_traced_are_named() -> None:
    rng = np.random.default_rng(0)

    def noisy(x: Any) -> Any:
        noise = rng.standard_normal(x.shape)
        return np.sum(np.sin(x * noise))

    plan = ckad.plan(noisy)(np.ones(1000))
    ((file, line, size),) = plan.made_while_traced
    assert (file, size) == (__file__, 8000)
    page = plan.to_html()
    assert "ckad.random" in page
    assert f"test_pictures.py:{line}" in page
    assert "x * noise" in page
    assert pictures.net().made_while_traced == []


def test_values_that_wait_in_a_file_are_counted() -> None:
    plan = pictures.net(checkpoint=ckad.Offload(min_bytes=1024))
    assert plan.offloaded_bytes > 0
    assert f"<b>{ckad.errors.in_units(plan.offloaded_bytes)}</b><span>in a file while they wait" in plan.to_html()


def test_programs_without_much_to_show_are_drawn(tmp_path: Path) -> None:
    plans = [
        ckad.plan(ckad.grad(lambda x: x * x))(1.0),
        ckad.plan(lambda x: np.sum(x))(np.ones(0)),
        ckad.plan(ckad.jit(lambda x: x + 1.0))(np.ones(3)),
        ckad.plan(ckad.jacobian(lambda x: x[:2] * 2.0))(np.ones(3)),
        ckad.plan(lambda x: np.sum(np.sin(x)) if x[0] > 0 else x[0])(np.ones(3)),
    ]
    for number, plan in enumerate(plans):
        assert Reader(plan.to_html()).open == []
        plan.to_png(tmp_path / f"{number}.png")


def test_long_programs_have_short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckad.picture.view.LONGEST_COMPARED", 100_000)
    plan = pictures.long(102_000)
    assert plan.timeline()["steps"] > 100_000
    page = plan.to_html()
    assert len(page.encode()) < 1 << 20
    assert max(json.loads(Reader(page).text["script"][0])["live"]) == plan.live_bytes


def test_programs_that_are_too_long_to_compare_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ckad.picture.view.LONGEST_COMPARED", 10)
    plan = pictures.net(checkpoint="sqrt")
    page = plan.to_html()
    assert "ckad.memory_frontier lists other plans" in page
    assert [a["class"] for tag, a in Reader(page).elements if tag == "circle"] == ["own"]
    plan.to_png(tmp_path / "plan.png")


def test_many_lines_have_short_pages() -> None:
    lines = "".join(f"    x = np.sin(x) * x  # {'line' * 50} {number}\n" for number in range(600))
    scope: dict[str, Any] = {"np": np}
    exec(compile(f"def f(x):\n{lines}    return np.sum(x)\n", "many.py", "exec"), scope)
    plan = ckad.plan(ckad.grad(scope["f"], checkpoint="sqrt"))(np.ones(100))
    page = plan.to_html()
    assert len(page.encode()) < 1 << 20
    assert "more lines hold less" in page
    timeline = plan.timeline(600, 9)
    assert len(timeline["lines"]) == 9
    assert max(timeline["held"][-1]) > 0


def test_the_png_is_a_picture(tmp_path: Path) -> None:
    for number, plan in enumerate((pictures.net(checkpoint="sqrt"), pictures.hostile())):
        path = tmp_path / f"{number}.png"
        plan.to_png(path)
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", data[16:24])
        assert width > 1000
        assert height > 400


def test_many_times_the_work_stands_on_a_logarithmic_axis(tmp_path: Path) -> None:
    def f(x: Any) -> Any:
        for _ in range(80):
            x = np.tanh(x @ np.eye(4))
        return np.sum(x)

    plan = ckad.plan(ckad.grad(f, checkpoint=ckad.Revolve(1)))(np.ones((1000, 4)))
    assert plan.extra_flops > 10 * (plan.flops - plan.extra_flops)
    ticks = re.findall(r">([\d.e+]+) %</text>", plan.to_html())
    assert ticks == ["0", "10", "100", "1000"]
    plan.to_png(tmp_path / "plan.png")


def test_without_matplotlib_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(
        RuntimeError, match=r"\[to_png\] .*matplotlib.*Hint: pip install 'ckad\[plot\]', or use to_html"
    ):
        pictures.net().to_png(tmp_path / "plan.png")
