"""What ``docs/django.md`` says is run here, or held against the code."""

from __future__ import annotations

import re
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import TestCase, override_settings
from django.urls import path

from penstock import django as penstock
from penstock.django import checks, conf, views
from tests.flask.ask import answer
from tests.support.client import SSEClient
from tests.support.ports import free_port
from tests.support.processes import ROOT, Server, environment

PAGE = (ROOT / "docs" / "django.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SETTINGS, VIEWS, _TRANSACTIONS, URLS, SIGNALS, _TASK, TESTS = BLOCKS

PROJECT = """
from pathlib import Path
BASE_DIR = Path(__file__).parent
ALLOWED_HOSTS = ["*"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
INSTALLED_APPS = [
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
ROOT_URLCONF = "routes"
SECRET_KEY = "test"
"""
MANAGE = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "project"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
MODELS = """
from django.conf import settings
from django.db import models

class Order(models.Model):
    customer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    state = models.TextField(default="new")
"""
ROUTES = """
import shop.signals
from django.urls import path
from shop import urls, views
urlpatterns = [
    path("orders/<int:pk>/events/", views.order_events),
    path("orders/<int:pk>/paid/", views.paid),
    *urls.urlpatterns,
]
"""
ENTER = """
from django.contrib.auth.models import User
from django.test import Client
from shop.models import Order
user = User.objects.create_user("alice")
client = Client()
client.force_login(user)
print(client.cookies["sessionid"].value, Order.objects.create(customer=user).pk)
"""


def manage(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_project_of_the_page_serves_its_orders(tmp_path: Path) -> None:
    (tmp_path / "manage.py").write_text(MANAGE)
    (tmp_path / "project.py").write_text(PROJECT + SETTINGS)
    (tmp_path / "routes.py").write_text(ROUTES)
    shop = tmp_path / "shop"
    shop.mkdir()
    for name, source in {
        "__init__": "", "models": MODELS, "views": VIEWS, "urls": URLS, "signals": SIGNALS,
    }.items():  # fmt: skip
        (shop / f"{name}.py").write_text(source)
    manage(tmp_path, "check", "--fail-level", "WARNING")
    manage(tmp_path, "migrate", "--run-syncdb", "--verbosity", "0")
    session, order = manage(tmp_path, "shell", "--command", ENTER).split()[-2:]
    port = free_port()
    command = [sys.executable, "manage.py", "runserver", f"127.0.0.1:{port}", "--noreload"]
    headers = {"Cookie": f"sessionid={session}"}
    with (
        Server(command, tmp_path, port=port) as server,
        SSEClient(f"{server.url}/orders/{order}/events/", headers=headers) as mine,
        SSEClient(f"{server.url}/events/?channel=order/{order}", headers=headers) as named,
    ):
        mine.wait_open()
        named.wait_open()
        with answer(server, f"/orders/{order}/paid/", method="POST", headers=headers) as response:
            assert response.status == 204
        for client in (mine, named):
            assert client.next()[:2] == ("state", '{"state":"paid"}')
        for page, status in (
            (f"/orders/{order}/events/", 302),
            (f"/events/?channel=order/{order}", 403),
            ("/events/?channel=news", 403),
            ("/members/events/", 403),
            ("/staff/events/", 403),
        ):
            with answer(server, page) as response:
                assert response.status == status
        assert (tmp_path / "penstock.db").exists()


urlpatterns = [path("news/events/", views.stream, {"channels": ["news"], "last": 1})]


def test_the_tests_of_the_page_pass() -> None:
    names: dict[str, Any] = {"__name__": __name__}
    exec(TESTS, names)
    case: type[TestCase] = names["NewsTest"]
    result = unittest.TestResult()
    with override_settings(ROOT_URLCONF=__name__):
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.testsRun == 2
    assert not result.errors + result.failures, result.errors + result.failures


def test_every_key_and_check_is_documented() -> None:
    for key in ("URL", "AUTHORIZE"):
        assert f"| `{key}` |" in PAGE
    assert set(conf.KEYS) == {"URL", "AUTHORIZE", *conf.OPTIONS}
    source = Path(checks.__file__).read_text() + Path(conf.__file__).read_text()
    used = set(re.findall(r"penstock\.[EW]00\d", source))
    told = set(re.findall(r"penstock\.[EW]00\d", PAGE)) | {f"penstock.E00{n}" for n in range(1, 6)}
    assert used == told
    assert settings.configured


@pytest.mark.parametrize("name", penstock.__all__)
def test_every_name_is_documented(name: str) -> None:
    assert re.search(rf"`(await )?{name}\b", PAGE)
