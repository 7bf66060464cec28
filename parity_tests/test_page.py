"""The report as a page, in a real browser: what is seen, in light and dark, on a desk and on a phone."""

import contextlib
import copy
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PRETRAINED, ROOT, alter_parameters
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from vqvae_gluon.artifacts.bundle import GraphFiles, graph_files
from vqvae_gluon.compat import mx
from vqvae_gluon.data import open_images
from vqvae_gluon.parity.harness import compare_bundles, compare_exports
from vqvae_gluon.parity.inputs import Feed
from vqvae_gluon.parity.markup import TERMS, explained
from vqvae_gluon.parity.page import write_html
from vqvae_gluon.parity.report import Report
from vqvae_gluon.runtimes.cpp import CppRuntime
from vqvae_gluon.runtimes.fp64 import Float64Runtime
from vqvae_gluon.runtimes.gluon import GluonRuntime

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DESK, TABLET, PHONE = (1280, 900), (820, 1180), (375, 812)
PAGES = ("agree", "diverge", "bounds", "hostile", "missing", "invalid")
HOSTILE = """</title></code><script>alert(1)</script><img src="http://localhost/x" onerror='alert(2)'>&amp;"""

# Of every element with text of its own: its contrast with what lies behind it, as WCAG 2 defines it.
CONTRASTS = """() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = numbers(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return null;
  };
  return [...document.querySelectorAll('main *, footer *')]
    .filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
    .map(e => {
      const [a, b] = [light(numbers(getComputedStyle(e).color)), light(behind(e))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.tagName + ': ' + e.textContent.trim().slice(0, 60)];
    });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.fail(
            f"none of {', '.join(BROWSERS)} is installed: run 'apt-get install chromium' or 'bash build.sh test'"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """A report of every kind, each by the real harness."""
    directory = tmp_path_factory.mktemp("reports")
    images = open_images(str(PRETRAINED / "digits"), 1, 8)
    more = open_images(str(PRETRAINED / "digits"), 1, 32)  # So many that a node behind the first is further off.
    changed = directory / "changed"
    shutil.copytree(PRETRAINED, changed, ignore=shutil.ignore_patterns("*.png", "*.npz", "digits"))
    alter_parameters(graph_files(changed, "encoder").params, lambda arrays: _add(arrays["arg:encoder_latent_weight"]))
    broken = directory / "broken"
    shutil.copytree(changed, broken)
    graph_files(broken, "encoder").symbol.write_text("{}")
    return {
        "agree": compare_bundles(GluonRuntime(), CppRuntime(), PRETRAINED, PRETRAINED, images),
        "diverge": compare_bundles(GluonRuntime(), CppRuntime(), PRETRAINED, changed, more),
        "bounds": compare_bundles(GluonRuntime(), Float64Runtime(), PRETRAINED, PRETRAINED, images),
        "hostile": _hostile(directory),
        "missing": _missing(directory),
        "invalid": compare_bundles(GluonRuntime(), CppRuntime(), PRETRAINED, broken, images),
    }


@pytest.fixture(scope="module")
def pages(reports: dict[str, Report], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("pages")
    return {name: write_html(report, directory / name) for name, report in reports.items()}


def _add(weight: np.ndarray) -> None:
    weight[3, 5, 0, 0] += 0.5


def _hostile(directory: Path) -> Report:
    """A long graph whose names are an attack, with a factor in its middle that the candidate has wrong."""
    value = mx.sym.var("data")
    for i in range(48):
        if i == 30:
            value = mx.sym.broadcast_mul(value, mx.sym.var("factor", shape=(1, 4)), name=f"{HOSTILE}middle")
        value = mx.sym.tanh(value, name=f"{HOSTILE}{i}")

    ours, theirs = (_export(value, directory / f"factor{factor}", factor) for factor in (1.0, 1.5))
    feed = Feed(HOSTILE, {"data": np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)}, 2, [])
    return compare_exports(GluonRuntime(), GluonRuntime(), ours, theirs, feed)


def _missing(directory: Path) -> Report:
    """A graph of which the candidate calls a node in the middle otherwise, so that it is compared on neither side."""

    def export(middle: str) -> GraphFiles:
        value = mx.sym.tanh(mx.sym.var("data"), name="before")
        value = mx.sym.tanh(mx.sym.broadcast_mul(value, mx.sym.var("factor", shape=(1, 4)), name=middle), name="behind")
        return _export(value, directory / middle, 1.0)

    ours, theirs = export("middle"), export("elsewhere")
    feed = Feed("numbers", {"data": np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)}, 2, [])
    return compare_exports(GluonRuntime(), GluonRuntime(), ours, theirs, feed)


def _export(value: Any, directory: Path, factor: float) -> GraphFiles:
    """A graph with a parameter ``factor`` of shape (1, 4), as a plain export."""
    directory.mkdir()
    files = GraphFiles(directory / "net-symbol.json", directory / "net-0000.params")
    files.symbol.write_text(value.tojson())
    mx.nd.save(str(files.params), {"arg:factor": mx.nd.array(np.full((1, 4), factor, np.float32))})
    return files


@contextlib.contextmanager
def opened(browser: Browser, file: Path, size: tuple[int, int] = DESK) -> Iterator[Page]:
    """A page, as a user opens it. Whatever is done with it, it says nothing to the console and asks for nothing."""
    width, height = size
    with browser.new_context(viewport={"width": width, "height": height}) as context:
        page = context.new_page()
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.set_default_timeout(5000)
        page.goto(file.as_uri(), wait_until="load")
        yield page
        assert said == []
        assert [url for url in asked if not url.startswith("data:image/png;base64,")] == [file.as_uri()]


def in_view(page: Page, selector: str) -> bool:
    box = page.locator(selector).bounding_box()
    size = page.viewport_size
    assert box is not None
    assert size is not None
    return box["y"] >= 0 and box["y"] + box["height"] <= size["height"] and box["x"] + box["width"] <= size["width"]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_window_and_begins_with_the_verdict(browser, pages, name):
    with opened(browser, pages[name]) as page:
        for width, height in (DESK, TABLET, PHONE):
            page.set_viewport_size({"width": width, "height": height})
            assert in_view(page, "h1")
            page.evaluate("document.querySelectorAll('details').forEach(element => element.open = true)")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("name", PAGES)
def test_text_is_legible_in_light_and_in_dark(browser, pages, name):
    backgrounds = []
    schemes: tuple[Any, ...] = ("light", "dark")
    with opened(browser, pages[name]) as page:
        for scheme in schemes:
            page.emulate_media(color_scheme=scheme)
            contrasts = page.evaluate(CONTRASTS)
            assert any(text.startswith("H1") for _, text in contrasts)
            assert any(text.startswith("P") for _, text in contrasts)
            assert [found for found in contrasts if found[0] < 4.5] == []
            backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert backgrounds[0] != backgrounds[1]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_makes_sense_to_those_who_do_not_see_it(browser, pages, name):
    with opened(browser, pages[name]) as page:
        images = page.evaluate("[...document.images].map(i => [i.alt, i.complete && i.naturalWidth > 0])")
        assert all(alt and loaded for alt, loaded in images)
        levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))")
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in zip([0, *levels], levels))
        assert page.evaluate(
            "[...document.querySelectorAll('table:not([aria-hidden])')].every(t => t.querySelector('th'))"
        )
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids))
        assert page.title().lower().startswith(page.locator("h1").inner_text().split()[-1].lower())


def test_agreement_is_said_first_and_shown(browser, pages, reports):
    with opened(browser, pages["agree"]) as page:
        assert page.locator("h1").inner_text().endswith("AGREE")
        assert page.locator("tr.equal").count() == len(reports["agree"].nodes) + len(reports["agree"].outputs)
        assert page.locator("tr.first, .heats").count() == 0
        assert page.locator(".strips img").count() == 6
        assert page.get_by_text("No code differs among these").is_visible()
        assert page.get_by_role("cell", name="bit equality").is_visible()


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_the_first_divergent_node_is_named_at_the_top_and_linked_with_its_row(browser, pages, size):
    with opened(browser, pages["diverge"], size) as page:
        assert page.locator("h1").inner_text().endswith("DIVERGE")
        assert in_view(page, "h1")
        assert page.locator("#cause").inner_text().startswith("Cause: one corrupted value. encoder_latent_weight")
        link = "header h2 a"
        assert page.locator(link).inner_text() == "encoder/encoder_latent_fwd"
        assert in_view(page, link)
        assert not in_view(page, "tr.first")
        page.click(link)
        assert in_view(page, "tr.first")
        assert "encoder_latent_fwd" in page.locator("tr.first").inner_text()
        assert "wrong" in page.locator("tr.first").inner_text()


def test_both_paths_to_the_first_divergent_node_are_told(browser, pages):
    with opened(browser, pages["diverge"]) as page:
        page.click("header summary")
        paths = [path.locator("code").all_inner_texts() for path in page.locator("header .path").all()]
        assert len(paths) == 2
        assert all(path[-2:] == ["encoder_relu1_fwd", "encoder_latent_fwd"] for path in paths)


def test_a_divergence_has_heat_maps_the_first_divergent_one_first(browser, pages, reports):
    report = reports["diverge"]
    with opened(browser, pages["diverge"]) as page:
        assert 1 <= page.locator(".heats img").count() <= 8
        first = page.locator(".heats > li").first.inner_text()
        assert first.startswith("encoder/encoder_latent_fwd")
        worst = report.first_divergent.comparison.metrics.worst
        assert f"({', '.join(map(str, worst.index))})" in first
        assert f"{worst.reference:.9g} against {worst.candidate:.9g}" in first


def test_flips_are_counted_and_listed_by_their_margin(browser, pages, reports):
    samples = reports["diverge"].samples
    flipped = int((samples.reference_codes != samples.candidate_codes).sum())
    assert flipped > 0
    with opened(browser, pages["diverge"]) as page:
        assert page.get_by_text(f"{flipped} real flips").is_visible()
        margins = [float(text) for text in page.locator(".flips td:nth-child(4)").all_inner_texts()]
        assert margins == sorted(margins, reverse=True)
        assert len(margins) == min(flipped, 8)
        assert set(page.locator(".flips td:last-child").all_inner_texts()) == {"\u2715 real"}


def test_on_a_phone_every_jump_is_seen_whole_without_scrolling_aside(browser, pages):
    with opened(browser, pages["diverge"], PHONE) as page:
        cells = page.locator(".flips td").all()
        assert cells
        for cell in cells:
            box = cell.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= PHONE[0]
        labels = page.evaluate(
            "[...document.querySelector('.flips tbody tr').cells].map(e => getComputedStyle(e, '::before').content)"
        )
        names = ["reference", "candidate", "margin", "legal up to"]
        assert [label for label in labels if label != "none"] == [f'"{name} "' for name in names]


def test_what_was_not_compared_has_no_bar(browser, pages, reports):
    compared = [not node.comparison.problem for node in reports["missing"].nodes.values()]
    assert compared.count(False) == 2
    with opened(browser, pages["missing"]) as page:
        bars = page.evaluate("[...document.querySelectorAll('.profile rect:not(.here)')].map(e => e.x.baseVal.value)")
        assert [int(x) for x in bars] == [place for place, found in enumerate(compared) if found]
        assert page.locator("tr.not").count() == 2
        assert page.locator("tr.not .bar").count() == 0


@pytest.mark.parametrize("name", PAGES)
def test_the_terms_of_a_page_are_explained_in_it(browser, pages, name):
    """By a tooltip for a mouse, and by a link for keys and fingers."""
    with opened(browser, pages[name]) as page:
        used = page.evaluate(
            "[...document.querySelectorAll('a.term')].map(a => [a.textContent, a.title, a.hash.slice(1)])"
        )
        entries = "[...document.querySelectorAll('.terms dt')].map(e => [e.id, e.nextElementSibling.innerText])"
        meanings = dict(page.evaluate(entries))
        assert len(meanings) == len(TERMS)
        for text, title, target in used:
            assert title == meanings[target], text
        if name == "diverge":
            assert {"arbiter", "legal", "real", "taps", "bound"} <= {text for text, _, _ in used}


def test_a_term_is_reached_by_keyboard(browser, pages):
    with opened(browser, pages["diverge"], PHONE) as page:
        page.locator("a.term", has_text="arbiter").first.focus()
        page.keyboard.press("Enter")
        assert in_view(page, "#term-arbiter")


def test_words_in_names_are_no_terms():
    assert "<a" not in explained("graph/tap and real/legal, net.bound-0000.params, tap.json")
    assert explained("<b>taps</b>: without taps.").count('href="#term-tap"') == 1
    assert explained("<b>") == "&lt;b&gt;"


def test_the_glossary_of_the_documents_has_the_same_words():
    glossary = " ".join((ROOT / "docs/glossary.md").read_text().split())
    for term, meaning in TERMS.items():
        assert f"**{term}**: {meaning}" in glossary


def test_legal_flips_are_told_from_real_ones(browser, reports, tmp_path):
    report = copy.deepcopy(reports["diverge"])
    for key, flips in report.flips.items():
        pardoned = [dataclasses.replace(flip, legal=flip.index == flips.flips[0].index) for flip in flips.flips]
        told = dataclasses.replace(flips, legal=1, real=flips.real - 1, flips=tuple(pardoned))
        report.nodes[key] = dataclasses.replace(report.nodes[key], flips=told)
    shown = int((report.samples.reference_codes != report.samples.candidate_codes).sum())
    with opened(browser, write_html(report, tmp_path)) as page:
        assert page.get_by_text(
            f"{shown - 1} real flips (no error within the bounds explains them) and \u25cb 1 legal"
        ).is_visible()
        assert page.get_by_text(f"{told.real} real, 1 legal, of {told.compared}").is_visible()


def test_where_bounds_are_expected_every_error_stands_before_its_bound(browser, pages, reports):
    measured = [node for node in reports["bounds"].nodes.values() if node.errors and not node.flips]
    assert measured
    with opened(browser, pages["bounds"]) as page:
        ends = page.evaluate(
            """[...document.querySelectorAll('.bar')].filter(bar => bar.querySelector('b')).map(
            bar => ['i', 'b'].map(name => bar.querySelector(name).getBoundingClientRect().right))"""
        )
        assert len(ends) >= len(measured)
        assert all(error <= bound for error, bound in ends)
        assert page.locator("tr.within").count() >= len(measured)
        assert page.locator("tr.wrong").count() == 0


def test_equal_nodes_of_a_long_graph_are_folded_and_can_be_opened(browser, pages):
    with opened(browser, pages["hostile"]) as page:
        fold = page.locator(".graph details").first
        assert "30 equal" in fold.locator("summary").inner_text()
        assert not fold.locator("tbody tr").first.is_visible()
        fold.locator("summary").click()
        assert fold.locator("tbody tr").count() == 30
        assert all(row.is_visible() for row in fold.locator("tbody tr").all())
        assert page.locator("tr.first").is_visible()


def test_names_from_hostile_files_are_text_and_nothing_else(browser, pages):
    with opened(browser, pages["hostile"]) as page:
        assert page.locator("header h2 a").inner_text() == f"graph/{HOSTILE}middle"
        assert page.evaluate("document.scripts.length") == 0
        assert page.evaluate("[...document.images].every(image => image.src.startsWith('data:'))")
        assert page.evaluate("[...document.querySelectorAll('*')].every(e => !e.getAttribute('onerror'))")


def test_a_comparison_that_failed_has_a_page_that_says_why(browser, pages, reports):
    with opened(browser, pages["invalid"]) as page:
        assert page.locator("h1").inner_text().endswith("INVALID")
        assert str(reports["invalid"].failure) in page.locator("#cause").inner_text()
        assert page.get_by_text("Nothing was compared.").is_visible()


def test_the_same_report_gives_the_same_files(reports, pages, tmp_path):
    write_html(reports["diverge"], tmp_path)
    for name in ("index.html", "overview.png"):
        assert (tmp_path / name).read_bytes() == (pages["diverge"].parent / name).read_bytes()
    with Image.open(tmp_path / "overview.png") as picture:
        assert picture.width > 600
