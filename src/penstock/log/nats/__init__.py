"""A log in a stream of NATS JetStream, on one server or replicated in a cluster."""

from penstock.log.nats.log import NatsLog
from penstock.log.nats.url import from_url

__all__ = ["NatsLog", "from_url"]
