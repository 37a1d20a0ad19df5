"""Shared by core's tests."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
