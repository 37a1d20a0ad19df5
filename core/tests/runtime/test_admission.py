"""How many environments fit."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from hud.errors import RuntimeStartError
from hud.runtime.admission import Capacity, available_memory_mb, local_capacity, raise_descriptor_limit


def test_the_smallest_limit_decides_and_is_named() -> None:
    found = local_capacity()
    assert found.children == min(found.by_memory, found.by_processes, found.by_descriptors) > 0
    assert found.children == getattr(found, f"by_{found.limiting}")
    assert local_capacity(child_mb=10 * found.memory_mb).children == 0


def test_asking_for_more_names_the_limit_and_how_to_raise_it() -> None:
    small = Capacity(3, "descriptors", 100, 100, 3, 4096.0)
    small.require(3)
    with pytest.raises(RuntimeStartError, match=r"3 environments at once, not 4.*descriptors.*ulimit -n"):
        small.require(4)


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one() -> None:
    code = (
        "import resource; from hud.runtime.admission import raise_descriptor_limit; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300)); print(raise_descriptor_limit(), "
        "resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["300", "300"]


def test_what_is_measured_is_plausible() -> None:
    assert 0 < available_memory_mb() < 1 << 24
    assert raise_descriptor_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
