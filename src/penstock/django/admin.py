"""The log's page in Django's admin: which channels have had events lately, and the newest events.

It reads the log, never a table, and writes nothing. Who has the permission ``penstock.view_record`` may look.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from penstock.core.channel import check_channel, refuse_own
from penstock.core.record import Record
from penstock.django import models
from penstock.django.process import get_bus
from penstock.django.recent import Recent, look
from penstock.errors import BadChannel, PenstockError

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[models.Record]
else:
    ModelAdmin = admin.ModelAdmin

SHORT_CHARS = 200
TEMPLATE = "admin/penstock/record/change_list.html"

_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")


class Row(NamedTuple):
    """An event, as the page shows it."""

    position: str
    time: datetime
    channel: str
    kind: str
    data: str
    more_chars: int


@admin.register(models.Record)
class RecordAdmin(ModelAdmin):
    """The page."""

    def get_urls(self) -> list[URLPattern]:
        """The one page that there is."""
        view = self.admin_site.admin_view(self.changelist_view)
        return [path("", view, name="penstock_record_changelist")]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody publishes here."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody changes what was published."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody takes it back."""
        return False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The page: channels, and events, with ``?channel=`` those of one."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        channel = request.GET.get("channel") or None
        recent: Recent | None = None
        log_url = problem = ""
        try:
            log = get_bus().engine.log
            log_url = log.url
            if channel is not None:
                refuse_own(check_channel(channel))
            recent = look(log, channel)
        except BadChannel as error:
            problem = str(error)
        except PenstockError as error:
            problem = f"The log cannot be read now. {error}"
        context = {
            **self.admin_site.each_context(request),
            "title": "Events",
            "opts": self.opts,
            "channel": channel,
            "problem": problem,
            "recent": recent,
            "log_url": log_url,
            "now": datetime.now(UTC),
            "rows": [_row(record) for record in recent.records] if recent is not None else [],
            "channels": [(each, _time(each.newest)) for each in recent.channels]
            if recent is not None
            else [],
            **(extra_context or {}),
        }
        return TemplateResponse(request, TEMPLATE, context)


def _row(record: Record) -> Row:
    data = _STEERING.sub("\N{REPLACEMENT CHARACTER}", record.data[:SHORT_CHARS].replace("\n", " "))
    kind = "penstock.end" if record.end else record.event or "message"
    more = max(0, len(record.data) - SHORT_CHARS)
    return Row(str(record.position), _time(record), record.channel, kind, data, more)


def _time(record: Record) -> datetime:
    return datetime.fromtimestamp(record.time, UTC)
