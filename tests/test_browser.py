"""One pass through the web UI in a real browser, over the embedded encoder and a server of its own.

Needs Debian's chromium and chromium-driver; skipped, saying so, where they are not installed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from conftest import ROOT
from ui_app import free_port, wait_for_server

from faqsearch import FaqSearch, Settings

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")
WAIT_SECONDS = 90


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the finance sample in it."""
    folder = tmp_path_factory.mktemp("home")
    with FaqSearch.open(Settings.load(folder)) as faq:
        faq.import_table(ROOT / "data" / "finance.csv", corpus="finance")
    return folder


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    """Where the server listens."""
    port = free_port()
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless=true", f"--server.port={port}"]
    environment = {**os.environ, "FAQSEARCH_HOME": str(home)}
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        wait_for_server(port, process, home / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """A headless window of desktop size."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--window-size=1400,1200"),
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


def find(browser: Any, selector: str) -> Any:
    """The element, once it is there and can be used."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support import expected_conditions
    from selenium.webdriver.support.wait import WebDriverWait

    there = expected_conditions.element_to_be_clickable((By.CSS_SELECTOR, selector))
    return WebDriverWait(browser, WAIT_SECONDS).until(there)


def wait_for(browser: Any, text: str) -> None:
    """Until the page says this."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, WAIT_SECONDS).until(lambda now: text in now.find_element(By.TAG_NAME, "body").text)


def ask(browser: Any, address: str, question: str) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.get(f"{address}/?corpus=finance")
    find(browser, ".st-key-query input").send_keys(question, Keys.ENTER)


def test_ask_in_chinese_and_read_the_answer(browser: Any, address: str) -> None:
    ask(browser, address, "二类户咋变一类户")
    wait_for(browser, "有答案")
    wait_for(browser, "请本人携带身份证到任一网点办理升级")
    assert find(browser, ".st-key-answer h3").text == "二类账户怎样升级成一类账户"
    find(browser, ".st-key-right button").click()
    wait_for(browser, "已记录：答得对")


def test_edit_an_entry_and_find_it_at_once(browser: Any, address: str, home: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    with FaqSearch.open(Settings.load(home)) as faq:
        entry = faq.entry("finance/F005")
    browser.get(f"{address}/entries_page?{urlencode({'corpus': 'finance', 'entry': entry.id})}")
    box = find(browser, ".st-key-entry_answer textarea")
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys("现在可以在手机上升级了。")
    box.send_keys(Keys.CONTROL, Keys.ENTER)
    find(browser, ".st-key-entry_save button").click()
    wait_for(browser, "2")
    ask(browser, address, "二类户咋变一类户")
    wait_for(browser, "现在可以在手机上升级了。")
    with FaqSearch.open(Settings.load(home)) as faq:
        assert faq.entry(entry.id).answer == "现在可以在手机上升级了。"


def test_upload_a_gb18030_table_with_a_bad_row(browser: Any, address: str, home: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    table = tmp_path / "新增.csv"
    table.write_text("编号,问题,回答\nN1,金库在几楼,金库在地下三楼。\nN2,没有答案的问题,\n", encoding="gb18030")
    browser.get(f"{address}/import_export?corpus=finance")
    WebDriverWait(browser, WAIT_SECONDS).until(lambda now: now.find_elements(By.CSS_SELECTOR, "input[type=file]"))
    browser.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(table))
    wait_for(browser, "GB18030")
    find(browser, ".st-key-import_go button").click()
    wait_for(browser, "no answer" if "no answer" in browser.page_source else "答案")
    ask(browser, address, "金库在几楼")
    wait_for(browser, "金库在地下三楼。")
    with FaqSearch.open(Settings.load(home)) as faq:
        assert faq.entry("finance/N1").answer == "金库在地下三楼。"
        assert faq.counts("finance").entries == 241
