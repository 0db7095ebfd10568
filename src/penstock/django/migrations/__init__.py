"""The migrations of the app: it has no tables."""
