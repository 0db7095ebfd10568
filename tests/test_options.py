"""Every setting is checked, and its limits are told."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from penstock import Options, Penstock
from penstock.errors import ConfigError
from penstock.log.base import Retention

# name: (default, good values, bad values)
OPTIONS: dict[str, tuple[object, list[object], list[object]]] = {
    "keep_alive": (15.0, [0.1, 20, 3600], [0, 0.09, 3601, None, "15", float("nan")]),
    "retry": (3000, [1, 86_400_000], [0, -1, 86_400_001, 3000.0, None, "3000"]),
    "publish_timeout": (5.0, [0, 0.5, 3600], [-1, 3601, None, float("inf")]),
    "max_event_bytes": (262_144, [1, 16 * 1024 * 1024], [0, 16 * 1024 * 1024 + 1, 1.5, None]),
    "max_streams": (None, [None, 0, 100], [-1, 1.0, "12"]),
    "max_streams_per_client": (None, [None, 1, 1_000_000], [0, -1, 1.0, "12"]),
    "overflow": ("poll", ["poll", "refuse"], ["", "Poll", None, 1]),
    "cors_origins": (
        (),
        [(), ("*",), ("https://app.example", "http://localhost:3000")],
        [
            "https://app.example",
            "*",
            ["app.example"],
            ["https://app.example/"],
            ["https://*.example"],
            None,
            1,
        ],
    ),
    "stream_lifetime": (None, [None, 1, 3600.5], [0, 0.5, "60", -1]),
    "ring_events": (10_000, [1, 10_000_000], [0, None, 1.0, 10_000_001]),
    "ring_bytes": (16 * 1024 * 1024, [1024], [1023, None, 1e6]),
    "max_age": (86_400.0, [None, 1, 3600], [0, 0.5, -1, "1d"]),
    "max_events": (1_000_000, [None, 1], [0, -1, 1.5, 1e6]),
    "max_bytes": (1024**3, [None, 65_536], [65_535, 1e9, "1G"]),
}


def test_these_are_the_options() -> None:
    assert {f.name: f.default for f in dataclasses.fields(Options)} == {
        name: default for name, (default, _, _) in OPTIONS.items()
    }


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, (_, good, _) in OPTIONS.items() for v in good])
def test_a_value_within_its_range_is_taken(name: str, value: object) -> None:
    settings: dict[str, Any] = {name: value}
    assert getattr(Options(**settings), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [(n, v) for n, (_, _, bad) in OPTIONS.items() for v in [*bad, True, False, [1], float("-inf")]],
)
def test_any_other_value_is_refused_by_name(name: str, value: object) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=rf"^{name} is .*{re.escape(repr(value))}") as caught:
        Options(**settings)
    assert isinstance(caught.value, ValueError)


def test_the_range_is_told() -> None:
    with pytest.raises(ConfigError, match=r"^retry is a whole number from 1 to 86400000, not 0$"):
        Options(retry=0)
    with pytest.raises(ConfigError, match=r"^max_age is a number from 1 to 3153600000 or None, not 0$"):
        Options(max_age=0)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [("keepalive", "did you mean 'keep_alive'"), ("max_evens", "did you mean 'max_events'")],
)
def test_a_name_that_is_none_is_refused_with_the_likeliest_one(wrong: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"no option '{wrong}'; {hint}"):
        Options.of({wrong: 1})
    with pytest.raises(ConfigError, match=hint):
        Penstock("memory:", **{wrong: 1})


def test_a_name_like_no_other_is_answered_with_all_of_them() -> None:
    with pytest.raises(ConfigError, match=r"there are keep_alive, retry, .*, max_bytes$"):
        Options.of({"zzz": 1})


def test_options_come_from_names_and_values() -> None:
    assert Options.of({}) == Options()
    assert Options.of({"retry": 5, "max_age": None}) == Options(retry=5, max_age=None)


def test_options_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().retry = 5  # type: ignore[misc]


def test_the_retention_is_what_the_limits_say() -> None:
    assert Options().retention == Retention() == Retention(24 * 3600.0, 1_000_000, 1024**3)
    assert Options(max_age=None, max_events=5, max_bytes=None).retention == Retention(None, 5, None)


def test_the_docstring_tells_of_every_option() -> None:
    assert Options.__doc__ is not None
    told = re.findall(r"^        (\w+): ", Options.__doc__, re.MULTILINE)
    assert told[: len(OPTIONS)] == list(OPTIONS)
