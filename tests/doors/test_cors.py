"""Pages of other sites: who is on the list, and with what."""

from __future__ import annotations

import pytest

from penstock.doors.cors import cors_headers, preflight_headers

APP, OTHER = "https://app.example", "https://other.example"
ALLOW, CREDENTIALS, VARY = "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Vary"


@pytest.mark.parametrize(
    ("allowed", "web_origin", "headers"),
    [
        ([], APP, {}),
        ([APP], APP, {ALLOW: APP, CREDENTIALS: "true", VARY: "Origin"}),
        ([APP], "HTTPS://App.example", {ALLOW: "HTTPS://App.example", CREDENTIALS: "true", VARY: "Origin"}),
        ([APP], OTHER, {VARY: "Origin"}),
        ([APP], None, {VARY: "Origin"}),
        ([APP], "null", {VARY: "Origin"}),
        (["*"], OTHER, {ALLOW: "*"}),
        (["*"], "null", {ALLOW: "*"}),
        (["*"], None, {ALLOW: "*"}),
        (["*", APP], APP, {ALLOW: APP, CREDENTIALS: "true", VARY: "Origin"}),
        (["*", APP], OTHER, {ALLOW: "*", VARY: "Origin"}),
        ([APP], f"{APP}.evil.example", {VARY: "Origin"}),
        ([APP], f"{APP}\r\nX-Forged: 1", {VARY: "Origin"}),
    ],
)
def test_credentials_are_for_named_origins_alone(
    allowed: list[str], web_origin: str | None, headers: dict[str, str]
) -> None:
    assert dict(cors_headers(allowed, web_origin)) == headers


def test_a_browser_is_told_what_it_may_send_if_it_may_send_anything() -> None:
    told = dict(preflight_headers([APP], APP))
    assert told["Access-Control-Allow-Methods"] == "GET, HEAD"
    assert told["Allow"] == "GET, HEAD, OPTIONS"
    assert "Last-Event-ID" in told["Access-Control-Allow-Headers"]
    assert dict(preflight_headers([APP], OTHER)) == {"Allow": "GET, HEAD, OPTIONS", VARY: "Origin"}
