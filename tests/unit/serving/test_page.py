"""The page in a real browser: a text is pasted or dropped, asked, and its answer marked; nothing leaves the service."""

import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from answerers import save_decisive
from direct_service import CONTEXT, QUESTION, Direct, options_for
from playwright.sync_api import Browser, Page, expect, sync_playwright

from qa_ray.answers import QuestionAnswerer
from qa_ray.serving.metrics import ServiceMetrics
from qa_ray.serving.options import digest
from qa_ray.serving.web import make_app

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium (on Debian: apt-get install chromium)")

EVIL = "<script>document.title = 'broken'</script><img src=x onerror=\"document.title = 'broken'\">"
TOKEN = "a word of sixteen letters and more"


@pytest.fixture(scope="module")
def folder(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    save_decisive("bert", bert, folder)
    return folder


def listen(app: Any) -> Iterator[str]:
    """The address at which an application is served."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, args=([place],))
        thread.start()
        yield f"http://127.0.0.1:{place.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    options = options_for(folder)
    yield from listen(make_app(Direct(options), options, ServiceMetrics(), None))


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[str]:
    options = options_for(folder)
    yield from listen(make_app(Direct(options), options, ServiceMetrics(), digest(TOKEN)))


@pytest.fixture(scope="module")
def cautious(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a model whose threshold lets it never answer."""
    folder = tmp_path_factory.mktemp("cautious")
    save_decisive("bert", bert, folder, threshold=-1e6)
    options = options_for(folder)
    yield from listen(make_app(Direct(options), options, ServiceMetrics(), None))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    page = browser.new_page()
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    yield page
    assert page.title() == "Ask a text"
    assert not [url for url in asked if not url.startswith((address, "data:"))]
    assert not [text for text in wrong if "status of 4" not in text]
    page.close()


def ask(page: Page, text: str, question: str) -> None:
    page.fill("#text", text)
    page.fill("#question", question)
    page.press("#question", "Enter")
    page.wait_for_selector("#send:not([disabled])")


def test_an_answer_is_marked_and_others_are_shown_with_their_scores(page: Page, folder: Path) -> None:
    text = f"\U0001f600\U0001f600 {CONTEXT}"
    ask(page, text, QUESTION)
    expected = QuestionAnswerer.from_pretrained(str(folder), device="cpu")(QUESTION, text, top_k=5)
    expect(page.locator("#best")).to_have_text(expected[0]["answer"])
    expect(page.locator("#marked mark")).to_have_text(expected[0]["answer"])
    expect(page.locator("#marked")).to_have_text(text)
    lines = page.locator("#answers button").all_inner_texts()
    assert lines == [f"{one['answer']}{100 * one['score']:.1f}%" for one in expected]
    page.locator("#answers button").nth(2).click()
    expect(page.locator("#marked mark")).to_have_text(expected[2]["answer"])
    expect(page.locator("#model")).to_contain_text(str(folder))


def test_no_answer_is_said_plainly(browser: Browser, cautious: str) -> None:
    page = browser.new_page()
    page.goto(cautious)
    ask(page, CONTEXT, QUESTION)
    expect(page.locator("#best")).to_have_text("The text holds no answer.")
    expect(page.locator("#marked")).to_have_text(CONTEXT)
    expect(page.locator("#marked mark")).to_have_count(0)
    lines = page.locator("#answers button")
    expect(lines.first).to_contain_text("no answer")
    lines.nth(1).click()
    expect(page.locator("#marked mark")).to_have_count(1)
    page.close()


def test_texts_stay_texts(page: Page) -> None:
    ask(page, f"{EVIL} Charles built {EVIL} the bridge.", f"Who {EVIL}?")
    expect(page.locator("#marked")).to_contain_text("<script>document.title")
    expect(page.locator("#history")).to_contain_text("<script>")
    assert page.locator("#marked script, #marked img, #history img, #answers img").count() == 0


def test_windows_are_shown_on_request(page: Page) -> None:
    text = " ".join(f"Charles built the bridge number {number}." for number in range(40))
    page.locator("summary").click()
    page.check("#windows")
    ask(page, text, QUESTION)
    expect(page.locator("#legend")).to_contain_text("windows")
    cuts = page.locator("#marked .cut").all_inner_texts()
    assert len(cuts) > 6
    assert cuts[0].strip() == "[1"
    without = page.evaluate(
        "() => [...document.querySelector('#marked').childNodes].filter((one) => one.className !== 'cut')"
        ".map((one) => one.textContent).join('')"
    )
    assert without == text


def test_earlier_questions_come_back_also_after_a_reload(page: Page) -> None:
    ask(page, CONTEXT, "First?")
    ask(page, "Anna went to Rome.", "Second?")
    page.fill("#question", "")
    page.press("#question", "ArrowUp")
    assert page.input_value("#question") == "Second?"
    page.press("#question", "ArrowUp")
    assert page.input_value("#question") == "First?"
    page.reload()
    page.locator("#history button").nth(1).click()
    assert page.input_value("#text") == CONTEXT
    expect(page.locator("#marked")).to_have_text(CONTEXT)


def test_a_file_is_opened_and_one_that_is_no_text_is_told(page: Page, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Caf\u00e9s were built in Prague.", "utf-8")
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\xff")
    page.set_input_files("#file", tmp_path / "text.txt")
    expect(page.locator("#size")).to_have_text("27 characters")
    page.set_input_files("#file", tmp_path / "picture.txt")
    expect(page.locator("#error")).to_have_text("picture.txt is no text in UTF-8.")
    drop = (
        "() => { const data = new DataTransfer(); data.items.add(new File(['A dropped text.'], 'd.txt'));"
        "document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true })); }"
    )
    page.evaluate(drop)
    page.wait_for_function("() => document.querySelector('#text').value === 'A dropped text.'")


def test_the_keyboard_is_enough(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    page.locator("body").click()
    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("/")
    expect(page.locator("#question")).to_be_focused()
    page.locator("#text").focus()
    page.keyboard.type("Charles built the bridge.")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.type("Who built it?")
    page.keyboard.press("Enter")
    expect(page.locator("#result")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(scheme: str, browser: Browser, address: str) -> None:
    page = browser.new_page(viewport={"width": 320, "height": 640}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(address)
    ask(page, CONTEXT * 20 + "x" * 200, "y" * 200)
    widths = "() => [...document.querySelectorAll(':not(input)')].map((one) => one.scrollWidth)"
    assert max(page.evaluate(widths)) <= 320
    paper = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(251, 251, 249)") == (scheme == "light")
    page.close()


def test_a_token_is_asked_for_where_there_is_one(browser: Browser, guarded: str) -> None:
    page = browser.new_page()
    page.goto(guarded)
    ask(page, CONTEXT, QUESTION)
    expect(page.locator("#error")).to_contain_text("send the service's token")
    expect(page.locator("#token")).to_be_focused()
    page.fill("#token", TOKEN)
    ask(page, CONTEXT, QUESTION)
    expect(page.locator("#result")).to_be_visible()
    assert page.evaluate("() => sessionStorage.getItem('qa_ray')").find(TOKEN) < 0
    page.close()


def test_what_is_refused_is_told(page: Page) -> None:
    ask(page, "a" * 300_000, QUESTION)
    expect(page.locator("#error")).to_contain_text("of the 200,000 that are taken")
    ask(page, " ", QUESTION)
    expect(page.locator("#error")).to_have_text("Paste a text that holds the answer.")


def test_the_page_of_the_api_shows_its_paths_without_another_server(browser: Browser, address: str) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}docs")
    expect(page.locator("#api")).to_contain_text("/answers")
    assert not [url for url in asked if not url.startswith((address, "data:"))]
    page.close()
