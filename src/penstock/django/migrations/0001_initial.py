"""Makes no table: it lets Django know the permission to look at the log."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """See ``penstock.django.models``."""

    initial = True
    dependencies = []  # noqa: RUF012
    operations = [  # noqa: RUF012
        migrations.CreateModel(
            name="Record",
            fields=[("seq", models.BigIntegerField(primary_key=True, serialize=False))],
            options={
                "verbose_name": "event",
                "verbose_name_plural": "events",
                "managed": False,
                "default_permissions": ("view",),
            },
        ),
    ]
