"""Run environments in Docker containers."""
