"""A real browser: Debian's Chromium, each with a profile of its own; nothing is downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-prefers-reduced-motion",  # what is shown is there at once: nothing is still fading in
]
TRIES = 3  # a busy machine may be too slow for the driver's own deadlines

Browse = Callable[[], Chrome]


@pytest.fixture
def browse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browse]:
    """Starts browsers."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    assert chromium
    assert chromedriver

    with ExitStack() as stack:

        def start() -> Chrome:
            for last in range(1, TRIES + 1):
                profile: Path = tmp_path_factory.mktemp("profile")
                options = ChromeOptions()
                options.binary_location = chromium
                for flag in [*FLAGS, f"--user-data-dir={profile}"]:
                    options.add_argument(flag)
                try:
                    driver = Chrome(options, ChromeService(chromedriver))
                except WebDriverException:
                    if last == TRIES:
                        raise
                else:
                    stack.callback(driver.quit)
                    return driver
            raise AssertionError("not reached")

        yield start
