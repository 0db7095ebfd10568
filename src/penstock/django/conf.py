"""The setting ``PENSTOCK``: what it may hold, read and checked.

A fault is described once, here; the system checks tell all of them, and the first use raises the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

from django.conf import settings as django_settings

from penstock.endpoint import Authorize
from penstock.errors import ConfigError
from penstock.log import open_log
from penstock.log.base import Log
from penstock.options import Options, refuse_unknown

NAME = "PENSTOCK"
OPTIONS = [name.upper() for name in Options.names()]
KEYS = ["URL", "AUTHORIZE", *OPTIONS]


class Fault(NamedTuple):
    """What is wrong with a setting.

    Attributes:
        id: of the system check.
        message: what is wrong.
        hint: what would be right.
    """

    id: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Settings:
    """The setting ``PENSTOCK``, checked.

    Attributes:
        url: of the log, or what makes it.
        authorize: who may read which channel, where clients name them; or the dotted path to it.
        options: the rest, as keyword arguments of ``penstock.Options``.
    """

    url: str | Callable[[], Log]
    authorize: Authorize | str | None
    options: Mapping[str, Any]

    @classmethod
    def read(cls) -> Settings:
        """What the project's settings say.

        Raises:
            ConfigError: if that cannot work.
        """
        given = getattr(django_settings, NAME, {})
        for fault in find_faults(given):
            raise ConfigError(f"{fault.message}: {fault.hint}" if fault.hint else fault.message)
        options = {name.lower(): value for name, value in given.items() if name in OPTIONS}
        return cls(given.get("URL", default_url()), given.get("AUTHORIZE"), options)


def default_url() -> str:
    """A file beside the project; in the working directory where nothing says where that is."""
    base = getattr(django_settings, "BASE_DIR", None)
    return "sqlite:///penstock.db" if base is None else f"sqlite:///{_quoted(base)}/penstock.db"


def find_faults(given: Any) -> Iterator[Fault]:
    """What is wrong with the value of the setting, one thing after the other."""
    if not isinstance(given, Mapping):
        yield Fault(
            "penstock.E001",
            f"{NAME} is a dict of settings, not {given!r:.80}",
            f'{NAME} = {{"URL": "sqlite:////var/lib/app/penstock.db"}}',
        )
        return
    for name, value in given.items():
        if name not in KEYS:
            yield Fault("penstock.E002", *_unknown(name))
        elif name in OPTIONS:
            try:
                Options.of({name.lower(): value})
            except ConfigError as error:
                yield Fault("penstock.E003", f"{NAME}[{name!r}]: {error}", "")
    url = given.get("URL", default_url())
    if not callable(url):
        try:
            open_log(url)  # which opens nothing
        except ConfigError as error:
            yield Fault("penstock.E004", f"{NAME}['URL']: {error}", "")
    authorize = given.get("AUTHORIZE")
    if authorize is not None and not callable(authorize) and not isinstance(authorize, str):
        yield Fault(
            "penstock.E005",
            f"{NAME}['AUTHORIZE'] is a function or the dotted path to one, not {authorize!r:.80}",
            "it is called with a request and the name of a channel, and tells whether that may be read",
        )


def _unknown(name: Any) -> tuple[str, str]:
    if isinstance(name, str) and name.upper() in KEYS:
        return f"there is no key {name!r} in {NAME}", f"its keys are in capitals: {name.upper()!r}"
    try:
        refuse_unknown("key", [str(name)], KEYS)
    except ConfigError as error:
        message, _, hint = str(error).partition("; ")
        return f"{message} in {NAME}", hint
    return f"there is no key {name!r} in {NAME}", "keys are text"


def _quoted(path: Any) -> str:
    """A folder as it stands in a URL."""
    return quote(str(path).replace("\\", "/"))
