"""What README and docs say is run here, or held against the code."""

from __future__ import annotations

import dataclasses
import re
import runpy
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from penstock import Options, Penstock
from penstock.core.stream import TRANSITIONS, State
from penstock.flask import Penstock as FlaskPenstock
from tests.support.client import SSEClient
from tests.support.processes import ROOT, Server
from tests.support.wait import DEADLINE_S

README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def post(url: str, **form: str) -> None:
    with urllib.request.urlopen(url, urllib.parse.urlencode(form).encode(), timeout=DEADLINE_S) as answer:
        assert answer.status == 204


def test_the_flask_app_of_the_readme_serves_a_chat(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(blocks(README, "python")[0])
    env = {"PYTHONPATH": str(tmp_path)}
    with (
        Server.gunicorn("app:app", tmp_path, env=env) as server,
        SSEClient(f"{server.url}/events") as client,
    ):
        client.wait_open()
        post(f"{server.url}/say", text="hello")
        assert client.next().data == '{"text": "hello"}'
        assert (tmp_path / "penstock.db").exists()


def test_the_app_factory_of_the_flask_page_serves_orders(tmp_path: Path) -> None:
    source = blocks(ROOT / "docs" / "flask.md", "python")[0]
    (tmp_path / "shop.py").write_text(source.replace("/var/lib/shop", str(tmp_path)))
    env = {"PYTHONPATH": str(tmp_path)}
    with (
        Server.werkzeug("shop:create_app", tmp_path, env=env) as server,
        SSEClient(f"{server.url}/orders/17/events") as client,
    ):
        client.wait_open()
        post(f"{server.url}/orders/17/paid")
        assert client.next()[:2] == ("state", '{"state": "paid"}')


def test_the_endpoint_of_the_page_on_rights_asks_about_each_channel() -> None:
    page = ROOT / "docs" / "authorization.md"
    (source,) = (block for block in blocks(page, "python") if "import Flask" in block)
    names: dict[str, Any] = {"__name__": "shop"}
    exec(source, names)
    client = names["app"].test_client()
    assert client.get("/events?channel=news").status_code == 200
    assert client.get("/events?channel=room/7").status_code == 403
    with client.session_transaction() as session:
        session["rooms"] = ["room/7"]
    assert client.get("/events?channel=news&channel=room/7").status_code == 200
    names["sse"].bus.close()


def test_the_test_of_the_flask_page_passes() -> None:
    source = blocks(ROOT / "docs" / "flask.md", "python")[-1]
    app = Flask("shop")
    names: dict[str, Any] = {"app": app, "Penstock": FlaskPenstock}
    exec(source, names)
    app.add_url_rule("/events", view_func=lambda: names["sse"].stream("chat", last=1))
    names["test_a_page_gets_the_last_event"]()
    names["sse"].bus.close()


def test_the_script_of_the_python_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(blocks(ROOT / "docs" / "python.md", "python")[0])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script))
    assert re.fullmatch(r"[a-z0-9]{8}:1 greeting hi\n", capsys.readouterr().out)


def test_the_picture_of_a_streams_life_is_the_table() -> None:
    (picture,) = (
        block for block in blocks(ROOT / "docs" / "architecture.md", "mermaid") if "stateDiagram" in block
    )
    drawn = set(re.findall(r"(\w+) --> (\w+) : (.+)", picture))
    table = {
        (before.value, after.value, what.value)
        for (before, what), after in TRANSITIONS.items()
        if before is not after
    }
    assert drawn == table
    assert {State.REPLAYING.value, State.CLOSED.value} <= set(re.findall(r"\w+", picture))


def test_every_option_is_documented() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    assert Options.__doc__ is not None
    for field in dataclasses.fields(Options):
        assert f"`{field.name}`" in page
        assert f"        {field.name}: " in Options.__doc__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        file, _, anchor = target.partition("#")
        if file.startswith(("http:", "https:")):
            continue
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


def test_the_docstring_example_of_the_bus_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Penstock.__doc__ is not None
    lines = re.findall(r"^\s+>>> (.+)$", Penstock.__doc__, re.MULTILINE)
    names: dict[str, object] = {"Penstock": Penstock}
    exec("\n".join(lines), names)
    assert str(names["position"]).endswith(":1")
    bus = names["bus"]
    assert isinstance(bus, Penstock)
    bus.close()
