"""A page that is served, and a browser to look at it with."""

import os
import shutil
import signal
import subprocess
import sys
from importlib import util

import pytest

NO_BROWSER = "no Chromium is installed to look at the page with: apt-get install chromium"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MOST_UPLOAD = 1  # MiB
PATIENCE = 300_000  # ms until what must happen has happened, on a machine that does much else


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of a page, and the folder of its runs."""
    if util.find_spec("gradio") is None:
        pytest.skip('the page needs Gradio: pip install "geokernels[ui]"')
    out = tmp_path_factory.mktemp("page") / "runs"
    command = [sys.executable, "-m", "geokernels", "ui", "--port", "0", "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--most-upload", str(MOST_UPLOAD)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    said = process.stdout.readline()
    assert said.startswith("The page is at http://127.0.0.1:"), said
    yield said.split()[4].rstrip("."), out
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert rest == "The page is stopped.\n"


@pytest.fixture(scope="module")
def browser():
    """Chromium, as the system has it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the page is driven by Playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip(NO_BROWSER)
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, served):
    """Opens the page, at a query; whatever goes wrong in it fails the test, and so does asking elsewhere."""
    address, _ = served
    contexts, wrong = [], []

    def open_(query="", **how):
        contexts.append(browser.new_context(**how))
        contexts[-1].set_default_timeout(PATIENCE)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda asked: asked.url.startswith((address, "data:", "blob:")) or wrong.append(asked.url),
        )
        page.goto(address + query)
        page.locator("#blend-run").wait_for()
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not wrong
