"""The environment side: declare, load, serve."""
