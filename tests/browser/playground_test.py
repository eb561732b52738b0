"""The page at `/` in a real browser (Chromium through Playwright): what a person sees and does.
Screenshots go to build/browser."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import pytest
from playwright.sync_api import expect, sync_playwright

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/end_to_end"))
import tiny_model  # noqa: E402

BINARY = os.environ.get("QUERN_BINARY", str(ROOT / "build/release/quern"))
SHOTS = ROOT / "build/browser"
KEY = "a-key-for-the-page"


@pytest.fixture(scope="session")
def model():
    if os.environ.get("QUERN_TEST_MODEL"):
        yield os.environ["QUERN_TEST_MODEL"]
        return
    with tempfile.TemporaryDirectory() as folder:
        yield str(tiny_model.make(pathlib.Path(folder) / "tiny"))


def start(model, *arguments):
    process = subprocess.Popen([BINARY, "serve", model, "--port", "0", "--json", "--log", "none", *arguments],
                               stdout=subprocess.PIPE, text=True)
    text = ""
    while True:
        line = process.stdout.readline()
        assert line, "the server did not start"
        text += line
        try:
            return process, json.loads(text)["url"]
        except json.JSONDecodeError:
            continue


@pytest.fixture(scope="session")
def url(model):
    process, address = start(model)
    yield address
    process.terminate()
    process.wait(timeout=60)


@pytest.fixture(scope="session")
def browser():
    SHOTS.mkdir(parents=True, exist_ok=True)
    program = os.environ.get("QUERN_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, url):
    """A page whose every message to the console and every request to another host fails the test."""
    context = browser.new_context(viewport={"width": 1100, "height": 760})
    opened = context.new_page()
    problems = []
    opened.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    opened.on("pageerror", lambda e: problems.append(str(e)))
    opened.on("request", lambda r: None if r.url.startswith(url) else problems.append(r.url))
    opened.goto(url)
    expect(opened.locator("#state")).to_have_text("ready")
    yield opened
    context.close()
    assert problems == []


def ask(page, text, tokens):
    page.fill("#max_tokens", str(tokens))
    page.fill("#seed", "3")
    page.fill("#input", text)
    page.keyboard.press("Enter")


def test_lists_the_model_and_answers_with_figures(page):
    assert page.locator("#model option").count() == 1
    ask(page, "What does a mill do?", 40)
    expect(page.locator(".message.user")).to_have_text("What does a mill do?")
    expect(page.locator("#state")).to_have_text("ready", timeout=60_000)
    assert page.locator(".message.assistant").inner_text().strip()
    assert page.locator("#ttft").inner_text().endswith(" ms")
    assert float(page.locator("#rate").inner_text()) > 0
    assert 1 <= int(page.locator("#completion_tokens").inner_text()) <= 40
    page.screenshot(path=SHOTS / "answer.png")


def test_a_second_question_carries_the_first(page):
    ask(page, "One", 8)
    expect(page.locator("#state")).to_have_text("ready", timeout=60_000)
    first = int(page.locator("#prompt_tokens").inner_text())
    ask(page, "Two", 8)
    expect(page.locator(".message.user")).to_have_count(2)
    expect(page.locator("#send")).to_be_visible(timeout=60_000)
    assert int(page.locator("#prompt_tokens").inner_text()) > first


def test_stops_an_answer_in_its_midst(page):
    ask(page, "Go on and on", 2000)
    expect(page.locator("#stop")).to_be_visible()
    expect(page.locator(".message.assistant")).to_have_text(re.compile(".{5}", re.S))
    page.click("#stop")
    expect(page.locator("#state")).to_have_text("stopped")
    expect(page.locator("#send")).to_be_visible()


def test_text_of_an_answer_is_never_markup(page):
    ask(page, "<img src=x onerror=alert(1)><b>bold</b>", 4)
    expect(page.locator(".message.user")).to_have_text("<img src=x onerror=alert(1)><b>bold</b>")
    assert page.locator(".message img, .message b").count() == 0


def test_a_new_conversation_forgets_the_last(page):
    ask(page, "One", 4)
    expect(page.locator("#state")).to_have_text("ready", timeout=60_000)
    page.click("#clear")
    expect(page.locator(".message")).to_have_count(0)


def test_shift_enter_breaks_the_line(page):
    page.fill("#input", "a")
    page.press("#input", "Shift+Enter")
    page.keyboard.type("b")
    assert page.input_value("#input") == "a\nb"
    expect(page.locator(".message")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone(browser, url, scheme):
    context = browser.new_context(viewport={"width": 375, "height": 700}, color_scheme=scheme)
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#state")).to_have_text("ready")
    ask(page, "A long word: " + "grindstone" * 20, 24)
    expect(page.locator("#state")).to_have_text("ready", timeout=60_000)
    width = page.evaluate("document.documentElement.scrollWidth")
    page.screenshot(path=SHOTS / f"phone-{scheme}.png")
    context.close()
    assert width <= 375


def test_asks_for_the_key_of_a_server_that_has_keys(browser, model, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"page {KEY}\n")
    process, address = start(model, "--api-keys", str(keys))
    context = browser.new_context()
    page = context.new_page()
    try:
        page.goto(address)
        expect(page.locator("#state")).to_contain_text("API key")
        page.fill("#key", KEY)
        page.press("#key", "Tab")
        expect(page.locator("#state")).to_have_text("ready")
        ask(page, "Hello", 4)
        expect(page.locator(".message.assistant")).not_to_have_text("", timeout=60_000)
    finally:
        context.close()
        process.terminate()
        process.wait(timeout=60)


def test_says_so_when_the_server_is_gone(browser, model):
    process, address = start(model)
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    expect(page.locator("#state")).to_have_text("ready")
    process.kill()
    process.wait(timeout=60)
    ask(page, "Hello", 4)
    expect(page.locator("#state")).to_have_text("failed")
    expect(page.locator(".message.error")).to_have_count(1)
    context.close()
