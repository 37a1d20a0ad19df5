"""Agents: the base, the tool loop, and those that need no model."""
