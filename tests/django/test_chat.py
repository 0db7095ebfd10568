"""The chat example in Django, on servers of both kinds; ``tests.browser.test_chat`` looks at its page."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.flask.ask import get, post
from tests.support.client import SSEClient
from tests.support.processes import ROOT, Server

CHAT = ROOT / "examples" / "chat"
ENV = {"PYTHONPATH": f"{ROOT}:{CHAT}", "PENSTOCK_URL": "sqlite:///chat.db"}
STATIC = ["chat.css", "chat.js", "icon.svg", "outbox.js", "people.js"]

SERVERS: dict[str, Callable[[Path], Server]] = {
    "uvicorn-push": lambda folder: Server.uvicorn("django_app:asgi", folder, env=ENV),
    "uvicorn": lambda folder: Server.uvicorn("django_app:asgi", folder, env=ENV, http="auto"),
    "push-worker": lambda folder: Server.push_worker("django_app:wsgi", folder, env=ENV),
}


@pytest.mark.parametrize("name", SERVERS)
def test_the_chat_serves_its_page_its_messages_and_who_is_here(tmp_path: Path, name: str) -> None:
    with SERVERS[name](tmp_path) as server:
        assert "<title>Penstock chat</title>" in get(server, "/")
        for file in STATIC:
            assert get(server, f"/static/{file}") == (CHAT / "static" / file).read_text()
        stored = json.loads(post(server, "/say", user="Ada", text="hello", key="1"))
        assert json.loads(post(server, "/say", user="Ada", text="hello", key="1")) == stored
        with SSEClient(f"{server.url}/events?{urlencode({'user': 'Grace'})}") as client:
            hello, roll = client.wait_for_messages(2)
            assert (hello.id, json.loads(hello.data)["text"]) == (stored["id"], "hello")
            assert (roll.event, json.loads(roll.data)["names"]) == ("presence", ["Grace"])
            with SSEClient(f"{server.url}/events?{urlencode({'user': 'Ada'})}"):
                assert json.loads(client.wait_for_messages(3)[-1].data)["names"] == ["Ada", "Grace"]
            assert json.loads(client.wait_for_messages(4)[-1].data)["names"] == ["Grace"]
        for form, status in (({"user": "", "text": "x"}, 400), ({"user": "Ada", "text": ""}, 400)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                post(server, "/say", **form)
            assert refused.value.code == status
            refused.value.close()
        assert "Traceback" not in server.log
        assert "Warning" not in server.log
