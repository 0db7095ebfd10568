"""Apps of other systems. Each is served in an environment of its own, where this folder is on the path."""
