"""The log's page in the admin: who may see it, what it shows, and that it reads no more than it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client, override_settings

from penstock import Event
from penstock import django as penstock
from penstock.core.record import Record
from penstock.django import get_bus, recent
from penstock.log.memory import MemoryLog
from tests.support.sqlite import moved_away

PAGE = "/admin/penstock/record/"


@pytest.fixture
def admin(alice: User) -> Client:
    """The browser of somebody who may look at the log, and at nothing else."""
    alice.is_staff = True
    alice.save()
    alice.user_permissions.add(Permission.objects.get(codename="view_record"))
    client = Client()
    client.force_login(alice)
    return client


def shown(client: Client, query: str = "") -> str:
    response = client.get(PAGE + query)
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def test_the_newest_events_are_shown_newest_first(admin: Client) -> None:
    first = penstock.publish("chat", "one")
    second = penstock.publish("room/7", {"text": "<b>two</b>"}, event="said")
    penstock.end("room/7")
    page = shown(admin)
    rows = re.findall(r"<tr> <th>(\S+)</th> <td class=\"nowrap\">(\S+ \S+ UTC)</td> (.*?)</tr>", page)
    assert [row[0] for row in rows][1:] == [str(second), str(first)]
    assert "penstock.end" in rows[0][2]
    assert "said" in rows[1][2]
    assert "&lt;b&gt;two&lt;/b&gt;" in rows[1][2]
    assert get_bus().engine.log.url in page
    assert "The newest 3, newest first" in page


def test_channels_are_listed_and_may_be_chosen(admin: Client) -> None:
    for number in range(3):
        penstock.publish("chat", f"chat {number}")
    penstock.publish("room/7?&<", "room")
    page = shown(admin)
    assert re.search(r'<a href="\?channel=chat">chat</a> 3 events, the newest 0 minutes ago', page)
    assert '<a href="?channel=room%2F7%3F%26%3C">room/7?&amp;&lt;</a> 1 event,' in page
    page = shown(admin, "?channel=chat")
    assert "chat 2" in page
    assert "<td>room</td>" not in page
    assert "The newest 3 of chat" in page
    assert "<td>room</td>" in shown(admin, "?channel=room%2F7%3F%26%3C")


def test_long_data_is_shortened_and_what_could_steer_is_not_shown(admin: Client) -> None:
    penstock.publish("chat", "a\nb\x1b[2J\u202e" + "x" * 1_000)
    page = shown(admin)
    assert "<td>a b\ufffd[2J\ufffd" in page
    assert "x" * 200 not in page
    assert "(808 more characters)" in page


def test_an_old_event_of_a_quiet_channel_is_found(admin: Client) -> None:
    penstock.publish("quiet", "long ago")
    penstock.publish_many([Event("busy", str(n)) for n in range(recent.LOOKED_AT + 10)])
    page = shown(admin)
    assert "long ago" not in page
    assert f"of the newest {recent.LOOKED_AT} events" in page
    assert "long ago" in shown(admin, "?channel=quiet")


def test_an_empty_log_is_a_page(admin: Client) -> None:
    assert "There are no events." in shown(admin)
    assert "There are no events of this channel." in shown(admin, "?channel=chat")


@pytest.mark.parametrize("channel", ["two words", "room/*", "penstock.kicks", "x" * 300])
def test_what_is_no_channel_is_told(admin: Client, channel: str) -> None:
    assert 'class="errornote"' in shown(admin, f"?channel={channel}")


def test_a_log_that_is_away_is_a_message_on_the_page(admin: Client, tmp_path: Path) -> None:
    with moved_away(tmp_path / "penstock.db"):
        assert '<p class="errornote">The log cannot be read now.' in shown(admin)


def test_settings_that_cannot_work_are_a_message_on_the_page(admin: Client) -> None:
    with override_settings(PENSTOCK={"KEEPALIVE": 3}):
        assert "did you mean" in shown(admin)


def test_only_who_has_the_permission_may_look(admin: Client, alice: User) -> None:
    assert "penstock/record/" in admin.get("/admin/").content.decode()
    alice.user_permissions.clear()
    assert admin.get(PAGE).status_code == 403
    assert "penstock/record/" not in admin.get("/admin/").content.decode()
    alice.is_staff = False
    alice.save()
    assert admin.get(PAGE).status_code == 302
    assert Client().get(PAGE).status_code == 302


def test_nothing_can_be_written(admin: Client, alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(is_superuser=True)
    penstock.publish("chat", "hi")
    for path in ("add/", "1/change/", "1/delete/"):
        assert admin.get(PAGE + path).status_code == 404
    assert f"{PAGE}add/" not in shown(admin)
    assert not Permission.objects.filter(
        content_type__app_label="penstock", codename__regex="^(add|change|delete)"
    ).exists()


class Counting(MemoryLog):
    """Counts what is read of it, and has no index."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def read(self, after: int, limit: int) -> list[Record]:
        found = super().read(after, limit)
        self.count += len(found)
        return found


def test_no_more_is_read_than_is_looked_at(admin: Client) -> None:
    log = Counting()
    with override_settings(PENSTOCK={"URL": lambda: log}):
        penstock.publish_many([Event("chat", str(n)) for n in range(10_000)])
        log.count = 0
        shown(admin)
        assert recent.LOOKED_AT <= log.count <= recent.LOOKED_AT + recent.STEP
        penstock.publish_many([Event("chat", "x" * 200_000) for _ in range(100)])
        log.count = 0
        shown(admin)
        assert log.count <= recent.STEP + recent.LOOKED_AT_BYTES / 200_000
