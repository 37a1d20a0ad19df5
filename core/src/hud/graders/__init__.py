"""Graders: outcomes into rewards."""
