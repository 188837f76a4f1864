"""The site as a reader meets it: every page in headless Chromium, offline, in both themes, wide and narrow."""

import functools
import http.server
import re
import threading
from urllib.parse import unquote, urldefrag, urljoin

import graph
import pytest
import stage
import yaml

PAGES = stage.entries(yaml.safe_load((graph.ROOT / "book" / "_toc.yml").read_text()))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
pages = pytest.mark.parametrize("name", PAGES)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """A request is no news."""


@pytest.fixture(scope="module")
def address(site):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser(chromium):
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """A fresh page; `page.trouble` collects console errors and requests that fail or leave the machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.trouble = []

    def look(request):
        if not request.url.startswith((address, "data:", "blob:")):
            page.trouble.append(f"leaves the machine: {request.url}")

    page.on("console", lambda message: message.type == "error" and page.trouble.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: page.trouble.append(f"script: {error}"))
    page.on("request", look)
    page.on("requestfailed", lambda request: page.trouble.append(f"failed: {request.url}"))
    page.on("response", lambda reply: reply.status >= 400 and page.trouble.append(f"{reply.status}: {reply.url}"))
    yield page
    context.close()


def theme(page, name):
    page.evaluate("name => { document.documentElement.dataset.theme = name }", name)


@pages
def test_page_is_whole_and_offline(page, address, name):
    page.goto(f"{address}{name}.html", wait_until="networkidle")
    assert not page.trouble
    # pictures below the fold load lazily
    page.evaluate("document.querySelectorAll('img').forEach(img => { img.loading = 'eager' })")
    page.wait_for_function("[...document.images].every(img => img.complete)")
    broken = page.evaluate("[...document.images].filter(img => !img.naturalWidth).map(img => img.src)")
    assert not broken
    if page.locator("script[src*=MathJax], script[src*=mathjax]").count() and page.locator(".math").count():
        page.wait_for_function("document.querySelectorAll('mjx-container').length > 0")
        assert page.locator("mjx-merror, .MathJax_Error").count() == 0
    assert not page.trouble


@pages
def test_photographs_keep_their_colors_in_both_themes(page, address, name):
    page.goto(f"{address}{name}.html")
    for shade in ("light", "dark"):
        theme(page, shade)
        altered = page.evaluate(
            """() => [...document.querySelectorAll('article img, main img, .ct-slider *')].filter(one => {
                const style = getComputedStyle(one)
                return style.filter !== 'none' || style.mixBlendMode !== 'normal'
            }).map(one => one.outerHTML.slice(0, 80))"""
        )
        assert not altered, f"{shade}: {altered}"
        white = page.evaluate(
            """() => [...document.querySelectorAll('.cell_output img, .cell_output .text_html')].filter(one =>
                getComputedStyle(one).backgroundColor === 'rgb(255, 255, 255)').length"""
        )
        assert not white, f"{shade}: {white} outputs on a white card"


@pages
def test_narrow_screen_scrolls_only_down(page, address, name):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{address}{name}.html", wait_until="networkidle")
    wide = page.evaluate(
        """() => document.documentElement.scrollWidth > window.innerWidth + 1
            ? [...document.querySelectorAll('article *')]
                .filter(one => one.getBoundingClientRect().right > window.innerWidth + 1)
                .map(one => one.outerHTML.slice(0, 90)).slice(0, 4)
            : null"""
    )
    assert wide is None, wide


def test_dark_mode_toggles(page, address):
    page.goto(f"{address}{PAGES[0]}.html")
    seen = {page.evaluate("document.documentElement.dataset.theme")}
    for _ in range(3):
        page.locator("button.theme-switch-button:visible").first.click()
        seen.add(page.evaluate("document.documentElement.dataset.theme"))
    assert seen == {"light", "dark"}


def test_search_finds_reinhard(page, address):
    page.goto(f"{address}search.html?q=Reinhard", wait_until="networkidle")
    page.wait_for_selector("#search-results li a")
    assert page.locator("#search-results li a").count() >= 1
    assert not page.trouble


def test_math_is_typeset_somewhere(page, address):
    page.goto(f"{address}book/notation.html", wait_until="networkidle")
    page.wait_for_selector("mjx-container")


def test_some_figures_are_shown(site):
    notebooks = [name for name in PAGES if name.startswith("notebooks/")]
    shown = [name for name in notebooks if "<img" in (site / f"{name}.html").read_text(encoding="utf-8")]
    assert shown, "no notebook page shows a figure"


def test_links_and_anchors_inside_the_site_resolve(site):
    texts = {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    anchors = {
        name: {unquote(one) for one in re.findall(r'\s(?:id|name)="([^"]+)"', text)} for name, text in texts.items()
    }
    dead = []
    for page in PAGES:
        name = f"{page}.html"
        for link in re.findall(r'\shref="([^"]+)"', texts[name]):
            if re.match(r"[a-z]+:|//", link):
                continue
            target, anchor = urldefrag(urljoin(name, link.replace("&amp;", "&").split("?")[0]))
            target = unquote(target) or name
            if not (site / target).is_file() or (
                anchor and target in anchors and unquote(anchor) not in anchors[target]
            ):
                dead.append(f"{name}: {link}")
    assert not dead
