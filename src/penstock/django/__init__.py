"""Penstock for Django: an app with ``publish`` and ``stream``, for ASGI and for WSGI.

Example:
    ::

        INSTALLED_APPS += ["penstock.django"]
        PENSTOCK = {"URL": "sqlite:////var/lib/shop/penstock.db"}  # settings.py

        def order_events(request, pk):
            order = get_object_or_404(Order, pk=pk, customer=request.user)
            return stream(request, f"order/{order.pk}", last=20, user=request.user.pk)

        @transaction.atomic
        def paid(request, pk):
            Order.objects.filter(pk=pk).update(state="paid")
            publish(f"order/{pk}", {"state": "paid"}, event="state")  # stored when this is committed
            return HttpResponse(status=204)
"""

from penstock.errors import MissingExtra

try:
    import django as _  # noqa: F401
except ImportError as error:
    raise MissingExtra("Django is not installed: pip install 'penstock[django]'") from error

from penstock.django import views
from penstock.django.process import asubscribe, drain, get_bus, predicate, stats, subscribe
from penstock.django.streams import astream, stream
from penstock.django.transactions import (
    aend,
    akick,
    apublish,
    apublish_many,
    end,
    kick,
    publish,
    publish_many,
)

__all__ = [
    "aend",
    "akick",
    "apublish",
    "apublish_many",
    "astream",
    "asubscribe",
    "drain",
    "end",
    "get_bus",
    "kick",
    "predicate",
    "publish",
    "publish_many",
    "stats",
    "stream",
    "subscribe",
    "views",
]
