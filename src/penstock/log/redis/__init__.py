"""The log in Redis or Valkey: one stream and one hash, for the processes of many machines."""

from penstock.log.redis.log import RedisLog
from penstock.log.redis.url import from_url

__all__ = ["RedisLog", "from_url"]
