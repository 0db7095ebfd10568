"""One Django project for all tests of this folder in this process; servers have apps of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import django
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.test import override_settings
from django.test.utils import setup_test_environment, teardown_test_environment

_folder = tempfile.TemporaryDirectory(prefix="penstock-django-")

settings.configure(
    ALLOWED_HOSTS=["testserver"],
    BASE_DIR=Path(_folder.name),
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{_folder.name}/db.sqlite3"},
        "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{_folder.name}/other.sqlite3"},
    },
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "penstock.django",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    ROOT_URLCONF="tests.django.urls",
    SECRET_KEY="test",
    STATIC_URL="static/",
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    TIME_ZONE="UTC",
    USE_TZ=True,
)
django.setup()

from django.contrib.auth.models import User  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def _project() -> Iterator[None]:
    """The project's tables, and what Django's own test runner prepares."""
    call_command("migrate", verbosity=0)
    call_command("migrate", database="other", verbosity=0)
    setup_test_environment()
    yield
    teardown_test_environment()
    connections.close_all()
    _folder.cleanup()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The log of this test."""
    return f"sqlite:///{tmp_path}/penstock.db"


@pytest.fixture(autouse=True)
def _log(url: str) -> Iterator[None]:
    """Each test has a log of its own; the change of the setting closes it."""
    with override_settings(PENSTOCK={"URL": url}):
        yield


@pytest.fixture(autouse=True)
def _no_connection_is_left() -> Iterator[None]:
    yield
    connections.close_all()


@pytest.fixture
def alice() -> Iterator[User]:
    """Somebody who may log in, and nothing else."""
    user = User.objects.create_user("alice", password="secret")
    yield user
    user.delete()
