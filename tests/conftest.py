"""Shared by the tests that span distributions."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
