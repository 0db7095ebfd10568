"""The model by which Django's admin knows the log: it has no table, and no row is ever read or written."""

from __future__ import annotations

from django.db import models


class Record(models.Model):
    """An event in the log. Who has its permission ``penstock.view_record`` may look at the log's page."""

    seq: models.BigIntegerField[int, int] = models.BigIntegerField(primary_key=True)

    class Meta:
        """See Django."""

        managed = False
        default_permissions = ("view",)
        verbose_name = "event"
        verbose_name_plural = "events"
