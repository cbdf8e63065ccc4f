"""The page in a browser: from a picture that is handed in to a result that is seen."""

import json
import re
from http.client import HTTPConnection
from urllib.parse import quote, urlsplit

import pytest
import torch
from typer.testing import CliRunner

from geokernels import world
from geokernels.cli import app
from geokernels.media.pictures import write_picture

MARKUP = "<img src=x onerror=\"document.title='taken'\"><b>red</b> ${7*7} {{7*7}}"

# whether the page says that more steps were taken
PAST = """(reached) => {
  const said = /morphing: (\\d+) of/.exec(document.querySelector("#standing").innerText);
  return said !== null && Number(said[1]) > reached;
}"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    chance = torch.Generator().manual_seed(1)
    for name, picture in zip(("a.png", "b.png"), world.render(world.sample_scenes(2, generator=chance), 32)):
        write_picture(folder / name, picture)
    (folder / "no.png").write_text("no picture")
    return folder


def choose(page, command):
    page.get_by_role("tab", name=command, exact=True).click()
    page.locator(f"#{command}-run").wait_for()


def hand_in(page, name, file):
    page.locator(f"#{name} input[type=file]").set_input_files(file)
    page.locator(f"#{name} img").wait_for()


def write(page, name, text):
    page.locator(f"#{name}").locator("input, textarea").first.fill(text)


def long_morph(page, picture, **texts):
    """Begin a morph of more steps than anybody waits for; gives its run's name."""
    choose(page, "morph")
    hand_in(page, "morph-picture", picture)
    for name, text in {"source": "a red circle", "target": "a blue circle", "steps": "5000", **texts}.items():
        write(page, f"morph-{name}", text)
    page.locator("#morph-more > button").click()
    write(page, "morph-sets", "views=2\nguess=2.0")
    page.locator("#morph-run").click()
    page.wait_for_url("**/?run=*")
    return page.url.partition("run=")[2]


def state(page, wanted):
    page.locator(f"#standing .state.{wanted}").wait_for()


def steps(page):
    """How many steps the page says were taken."""
    shown = page.locator("#standing").get_by_text(re.compile(r"morphing: \d+ of 5000 steps"))
    shown.wait_for()
    return int(re.search(r"morphing: (\d+)", shown.inner_text())[1])


def test_a_film_from_two_pictures_that_are_handed_in(opened, served, pictures):
    page = opened()
    hand_in(page, "blend-first", pictures / "a.png")
    hand_in(page, "blend-second", pictures / "b.png")
    write(page, "blend-frames", "3")
    page.locator("#blend-run").click()
    state(page, "finished")
    name = page.url.partition("run=")[2]
    film = page.locator("#result img[alt='blend.gif']")
    film.wait_for()
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=film.element_handle())
    record = json.loads((served[1] / name / "run.json").read_text())
    assert record["options"]["--frames"] == 3
    assert set(record["options"]) == {"FIRST", "SECOND", "--frames"}  # nothing that was not asked
    with page.expect_popup() as popup:
        page.get_by_role("link", name="The report").click()
    assert popup.value.title() == "a.png → b.png"
    page.get_by_role("tab", name="runs").click()
    page.locator(f"#browser a[href='?run={name}']").click()
    state(page, "finished")


def test_a_run_is_watched_reloaded_cancelled_and_goes_on(opened, served, pictures):
    page = opened()
    name = long_morph(page, pictures / "a.png")
    assert steps(page) >= 0
    page.locator("#standing .preview").wait_for()
    page.reload()
    state(page, "running")
    assert page.locator("#run-title small").inner_text() == name
    page.locator("#cancel").click()
    state(page, "stopped")
    reached = steps(page)
    assert (served[1] / name / "checkpoint.pt").exists()
    assert f"Stopped after step {reached} of 5000" in page.locator("#standing .reason").inner_text()
    page.locator("#resume").click()
    state(page, "running")
    page.wait_for_function(PAST, arg=reached)
    page.locator("#cancel").click()
    state(page, "stopped")
    assert steps(page) > reached


def test_two_pages_share_the_line(opened, pictures):
    first, second = opened(), opened()
    running = long_morph(first, pictures / "a.png")
    state(first, "running")
    waiting = long_morph(second, pictures / "b.png")
    assert waiting != running
    state(second, "waiting")
    second.get_by_text("It waits in line: one run is before it.").wait_for()
    assert first.locator("#run-title small").inner_text() == running
    second.locator("#cancel").click()
    state(second, "stopped")
    second.get_by_text("it had not begun").wait_for()
    state(first, "running")
    first.locator("#cancel").click()
    state(first, "stopped")


def test_what_is_wrong_is_said_as_the_command_says_it(opened, served, pictures):
    page = opened()
    choose(page, "morph")
    page.locator("#morph-run").click()
    page.locator("#morph-refusal [role=alert]").get_by_text("Missing").wait_for()
    page.locator("#morph-picture input[type=file]").set_input_files(pictures / "no.png")
    write(page, "morph-source", "a red circle")
    write(page, "morph-target", "a blue circle")
    write(page, "morph-steps", "none")
    page.locator("#morph-run").click()
    page.locator("#morph-refusal [role=alert]").get_by_text("--steps").wait_for()
    write(page, "morph-steps", "2")
    page.locator("#morph-run").click()
    state(page, "failed")
    name = page.url.partition("run=")[2]
    asked = json.loads((served[1] / ".ui" / name / "asked.json").read_text())
    said = CliRunner().invoke(app, ["morph", f"--out={served[1] / 'again'}", *asked["words"]])
    assert said.exit_code == 2
    assert said.stderr.strip() == f"Error: {page.locator('#standing .reason').inner_text()}"


def test_a_prompt_is_text(opened, pictures):
    page = opened()
    name = long_morph(
        page, pictures / "a.png", source=MARKUP, target="<script>document.title='taken'</script>"
    )
    state(page, "running")
    page.locator("#cancel").click()
    state(page, "stopped")
    assert MARKUP in page.locator("#result").inner_text()
    page.get_by_role("tab", name="runs").click()
    item = page.locator(f"#browser a[href='?run={name}']")
    item.wait_for()
    assert MARKUP in item.inner_text()
    for place in ("#result", "#browser", "#standing"):
        assert page.locator(place).locator("script, [onerror]").count() == 0
    assert page.title() == "geokernels"


def test_an_address_that_names_no_run_shows_none(opened):
    page = opened("?run=..%2F..%2Fetc%3Cscript%3E")
    page.get_by_role("tab", name="runs").click()
    page.locator("#browser").locator(".runs, .quiet").first.wait_for()  # it has been looked for by then
    page.get_by_text("No run is shown.").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(opened, scheme):
    page = opened(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#blend-run").is_visible()


def asked(address, path, **headers):
    """Status, headers and body that the server answers with, the path sent as it stands."""
    connection = HTTPConnection(urlsplit(address).netloc)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    connection.close()
    return found


def test_nothing_outside_the_folder_is_served(served, tmp_path):
    address, out = served
    secret = tmp_path / "secret.txt"
    secret.write_text("what nobody may see")
    (out / "link.txt").symlink_to(secret)
    (out / "folder").symlink_to(tmp_path)
    (out / "open.txt").write_text("open")
    assert asked(address, f"/gradio_api/file={out}/open.txt")[2] == b"open"
    ways = [
        str(secret),
        f"{out}/../{'../' * 20}{str(secret).lstrip('/')}",
        f"{out}/{'%2e%2e/' * 20}{str(secret).lstrip('/')}",
        f"{out}/{'..%2f' * 20}{str(secret).lstrip('/')}",
        f"{out}/link.txt",
        f"{out}/folder/secret.txt",
        f"file://{secret}",
        quote(f"file://{secret}", safe=""),
        address,
        "http:%2f%2f127.0.0.1/",
    ]
    for way in ways:
        status, _, body = asked(address, f"/gradio_api/file={way}")
        assert status in (403, 404), way
        assert b"what nobody may see" not in body
    assert asked(address, f"/gradio_api/proxy={address}")[0] == 403


def test_pages_elsewhere_ask_for_nothing(served):
    address, out = served
    here = urlsplit(address).netloc
    assert asked(address, "/")[0] == 200
    assert asked(address, "/", Host="elsewhere.example")[0] == 403
    assert asked(address, "/config", Origin="http://elsewhere.example")[0] == 403
    assert asked(address, "/config", Origin=f"http://{here}")[0] == 200
    assert "default-src 'self'" in asked(address, "/")[1]["content-security-policy"]
    (out / "page.html").write_text("<script>1</script>")
    headers = asked(address, f"/gradio_api/file={out}/page.html")[1]
    assert headers["content-security-policy"].startswith("sandbox")
    assert headers["x-content-type-options"] == "nosniff"


def test_a_folder_has_one_page_and_a_port_one_server(served, tmp_path):
    address, out = served
    port = str(urlsplit(address).port)
    for typed, sentence in (
        (["--port", "0", "--out", str(out)], f"--out must not be in use, another run .* is writing to {out}"),
        (["--port", port, "--out", str(tmp_path)], f"--port must be free on 127.0.0.1, {port} is not"),
        (["--host", "no.such.host.invalid"], "--host must be an address of this computer, got 'no.such"),
    ):
        said = CliRunner().invoke(app, ["ui", *typed])
        assert said.exit_code == 2
        assert re.search(sentence, said.stderr)


def test_what_is_too_large_is_not_taken(served):
    address, out = served
    bound = b"--line\r\nContent-Disposition: form-data; name=files; filename=%s\r\n\r\n%s\r\n--line--\r\n"
    for size, status in ((2**19, 200), (2**21, 413)):
        connection = HTTPConnection(urlsplit(address).netloc)
        headers = {"Content-Type": "multipart/form-data; boundary=line"}
        connection.request("POST", "/gradio_api/upload", bound % (b"large.png", b"0" * size), headers)
        assert connection.getresponse().status == status
        connection.close()
    assert {path.stat().st_size for path in (out / ".ui").rglob("large.png")} == {2**19}
