"""Makes ``docs/pictures/ui.png``: the page of ``geokernels ui`` with a finished run, as Chromium shows it.

python scripts/picture_of_page.py [PNG]; needs the extras ``ui`` and ``test``, and Chromium.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
SIZE = {"width": 1280, "height": 860}
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
COLOURS = 128  # of the PNG's palette
PATIENCE = 600_000  # ms


def main() -> None:
    """Serve a page, run its example of a morph, and take its picture."""
    to = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/pictures/ui.png"
    with tempfile.TemporaryDirectory() as folder:
        # of a path that tells nothing of this computer, as the page shows it
        command = [sys.executable, "-m", "geokernels", "ui", "--port", "0", "--out", f"{folder}/runs"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            address = server.stdout.readline().split()[4].rstrip(".")
            with sync_playwright() as started:
                browser = started.chromium.launch(
                    executable_path=shutil.which("chromium"), args=[*FLAGS, "--force-color-profile=srgb"]
                )
                page = browser.new_page(viewport=SIZE)
                page.set_default_timeout(PATIENCE)
                page.goto(address)
                page.get_by_role("tab", name="morph", exact=True).click()
                page.get_by_role("button", name="a red circle → a blue circle").locator(
                    "visible=true"
                ).click()
                page.locator("#standing .state.finished").wait_for()
                page.locator("#result img").first.wait_for()
                page.wait_for_load_state("networkidle")
                page.evaluate("document.querySelectorAll('#result .place').forEach(e => e.remove())")
                page.screenshot(path=to)
                browser.close()
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()
    with Image.open(to) as picture:
        picture.convert("RGB").quantize(COLOURS).save(to, optimize=True)


if __name__ == "__main__":
    main()
