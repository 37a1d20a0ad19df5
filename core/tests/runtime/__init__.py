"""Tests of hud.runtime."""
