"""The chat example in two real browsers: whatever happens to the server, both show every message once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from penstock import Penstock
from tests.browser.conftest import Browse
from tests.support.needs import need_chromium
from tests.support.processes import ROOT, Server
from tests.support.wait import wait_for

pytestmark = [need_chromium, pytest.mark.browser]

CHAT = ROOT / "examples" / "chat"
ENV = {"PYTHONPATH": f"{ROOT}:{CHAT}", "PENSTOCK_URL": "sqlite:///chat.db"}
READ = """
return [...document.querySelectorAll("#messages .message[data-id]")].map((item) => [
    item.dataset.id, item.querySelector(".user").textContent, item.querySelector(".text").textContent,
]);
"""
PEOPLE = """
return [...document.querySelectorAll("#people li")].map((item) => [item.dataset.user, item.dataset.state]);
"""
SAY_ALL = """
const form = document.querySelector("#say");
for (const text of arguments[0]) {
    form.elements.text.value = text;
    form.requestSubmit();
}
"""


class Page:
    """The chat in a browser of its own."""

    def __init__(self, driver: Chrome, url: str, user: str) -> None:
        self.driver = driver
        self.user = user
        driver.get(url)
        name = driver.find_element(By.CSS_SELECTOR, "#name input[name=user]")
        name.send_keys(user, Keys.ENTER)
        wait_for(lambda: self.state == "connected" and self.field.is_displayed(), what="it is connected")

    @property
    def state(self) -> str | None:
        return self.driver.find_element(By.ID, "state").get_attribute("data-state")

    @property
    def field(self) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, "#say input[name=text]")

    @property
    def shown(self) -> list[tuple[str, str, str]]:
        """Each message's id, user and text, from top to bottom."""
        return [tuple(each) for each in self.driver.execute_script(READ)]

    @property
    def texts(self) -> list[str]:
        return [text for _, _, text in self.shown]

    @property
    def people(self) -> dict[str, str]:
        """Who is here, and how."""
        return dict(self.driver.execute_script(PEOPLE))

    def say(self, text: str) -> None:
        """As a person does: types it and presses Enter."""
        self.field.send_keys(text, Keys.ENTER)

    def say_all(self, texts: list[str]) -> None:
        """As fast as a page can."""
        self.driver.execute_script(SAY_ALL, texts)

    def wait_for_state(self, state: str) -> None:
        wait_for(lambda: self.state == state, 60, lambda: f"{self.user} is {state}, not {self.state}")

    def wait_for_texts(self, count: int) -> None:
        wait_for(
            lambda: len(self.texts) >= count, 60, lambda: f"{count} messages at {self.user}: {self.texts}"
        )


APPS = {
    "flask": "app:app",
    "fastapi": "fastapi_app:app",
    "starlette": "starlette_app:app",
    "django": "django_app:asgi",
    "quart": "quart_app:app",
}


@pytest.fixture
def face() -> str:
    """The framework, if the test does not ask for all of them."""
    return "flask"


@pytest.fixture
def server(face: str, tmp_path: Path) -> Iterator[Server]:
    """As scripts/demo serves it."""
    serve = Server.push_worker if face == "flask" else Server.uvicorn
    with serve(APPS[face], tmp_path, env=ENV) as running:
        yield running


@pytest.mark.parametrize("face", APPS)
def test_two_people_see_every_message_once_though_the_server_is_killed(
    server: Server, browse: Browse
) -> None:
    ada, ben = Page(browse(), server.url, "Ada"), Page(browse(), server.url, "Ben")
    ada.say("hello")
    ben.wait_for_texts(1)
    ben.say("hi Ada <b>not bold</b>")
    ada.wait_for_texts(2)
    burst = [f"ada {index}" for index in range(40)]
    ada.say_all(burst[:20])
    wait_for(lambda: "ada 3" in ben.texts, what="some have arrived")
    server.freeze()  # so that the rest is still being sent when it dies
    ada.say_all(burst[20:])
    server.kill()
    for page in (ada, ben):
        page.wait_for_state("reconnecting")
        assert len(page.texts) < 2 + len(burst)
    ben.say("written while it is dead")
    ada.say("by me too")
    with Penstock(f"sqlite:///{server.folder}/chat.db") as bus:
        bus.publish("chat", {"user": "Operator", "text": "back soon"})
    server.start()
    for page in (ada, ben):
        page.wait_for_state("connected")
        page.wait_for_texts(len(burst) + 5)
    assert ada.shown == ben.shown
    seqs = [int(id.partition(":")[2]) for id, _, _ in ada.shown]
    assert seqs == sorted(set(seqs))
    assert sorted(ada.texts) == sorted(
        ["hello", "hi Ada <b>not bold</b>", "written while it is dead", "by me too", "back soon", *burst]
    )
    own = [text for _, user, text in ada.shown if user == "Ada"]
    assert own == ["hello", *burst, "by me too"]


def test_a_page_that_is_opened_later_gets_the_history(server: Server, browse: Browse) -> None:
    with Penstock(f"sqlite:///{server.folder}/chat.db") as bus:
        for index in range(30):
            bus.publish("chat", {"user": "Operator", "text": f"old {index}"})
    page = Page(browse(), server.url, "Eve")
    page.wait_for_texts(30)
    page.driver.refresh()
    page.wait_for_texts(30)
    assert page.texts == [f"old {index}" for index in range(30)]


def test_who_is_connected_and_who_left_is_shown(server: Server, browse: Browse) -> None:
    ada, ben = Page(browse(), server.url, "Ada"), Page(browse(), server.url, "Ben")
    here = {"Ada": "connected", "Ben": "connected"}
    for page in (ada, ben):
        wait_for(lambda page=page: page.people == here, 60, "both are here")  # type: ignore[misc]
    chat = ben.driver.current_window_handle
    ben.driver.switch_to.new_window("tab")
    other = ben.driver.current_window_handle
    ben.driver.switch_to.window(chat)
    ben.driver.close()  # the tab, and not the browser
    ben.driver.switch_to.window(other)
    wait_for(lambda: ada.people == {**here, "Ben": "reconnecting"}, 60, lambda: f"Ben left: {ada.people}")


def test_a_gap_is_shown(server: Server, browse: Browse) -> None:
    page = Page(browse(), server.url, "Ada")
    page.say("before")
    page.wait_for_texts(1)
    server.kill()
    for file in server.folder.glob("chat.db*"):
        if file.is_file():
            file.unlink()
    with Penstock(f"sqlite:///{server.folder}/chat.db") as bus:
        bus.publish("chat", json.dumps({"user": "Operator", "text": "a new log"}))
    server.start()
    page.wait_for_texts(2)
    assert page.texts == ["before", "a new log"]
    (gap,) = page.driver.find_elements(By.CSS_SELECTOR, "#messages .gap")
    assert gap.get_attribute("data-reason") == "epoch"
    wait_for(gap.is_displayed, what="the notice is shown")
