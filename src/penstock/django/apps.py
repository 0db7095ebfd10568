"""The app ``penstock.django``. Nothing is opened or started before the first use."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks


class PenstockConfig(AppConfig):
    """The app's configuration: its label is ``penstock``."""

    name = "penstock.django"
    label = "penstock"
    verbose_name = "Penstock"

    def ready(self) -> None:
        """Register the system checks."""
        from penstock.django.checks import check_deployment, check_middlewares, check_settings

        checks.register(check_settings, "penstock")
        checks.register(check_middlewares, "penstock")
        checks.register(check_deployment, "penstock", deploy=True)
