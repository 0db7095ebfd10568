"""Penstock's own apps under measurement: ``GET /stream``, and ``POST /pub``, whose body is published."""
