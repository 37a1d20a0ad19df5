"""hud.toml: what it may say, and errors with line, close name and allowed values."""

from __future__ import annotations

from pathlib import Path

import pytest

from hud.errors import ConfigError
from hud.settings.hudtoml import Price, project, read_project

WHOLE = """\
[runtime]
default = "local"

[runtime.env."browser-*"]
use = "docker"
image = "acme/browser-env"

[runtime.env."browser-one"]
use = "local"

[runtime.env."sim-*"]
use = "modal"
resources = { gpu = { type = ["H100", "A100"], count = 2 }, cpu = 4 }
limits = { startup_timeout_s = 600 }
options = { app_name = "sims" }

[plugins]
disable = ["viewer"]
strict = true

[prices]
"claude-*" = { input = 3, output = 15.0, cached_input = 0.3 }

[redact]
patterns = ["acme-[0-9]+"]
env = ["ACME_KEY"]

[limits]
act_s = 120
max_steps = 40

[eval]
group = 3

[agents.claude]
max_tokens = 1000
"""


def test_everything_it_may_say(tmp_path: Path) -> None:
    (tmp_path / "hud.toml").write_text(WHOLE)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    found = read_project(tmp_path / "deep" / "er")
    assert found.folder == tmp_path
    assert found.path == tmp_path / "hud.toml"
    assert found.runtime_default == "local"
    assert found.plugins.disable == ["viewer"]
    assert found.plugins.strict
    assert found.plugins.autoload
    assert found.prices == {"claude-*": Price(input=3.0, output=15.0, cached_input=0.3)}
    assert found.redact.env == ["ACME_KEY"]
    assert found.limits == {"act_s": 120.0, "max_steps": 40}
    assert found.eval == {"group": 3}
    assert found.agents == {"claude": {"max_tokens": 1000}}


def test_routes_prefer_an_exact_name_then_the_files_order(tmp_path: Path) -> None:
    (tmp_path / "hud.toml").write_text(WHOLE)
    found = read_project(tmp_path)
    one, many, sim = (found.route(name) for name in ("browser-one", "browser-two", "sim-9"))
    assert one is not None
    assert one.use == "local"
    assert one.config() is None
    assert many is not None
    assert many.config() == {"image": "acme/browser-env"}
    assert sim is not None
    assert sim.options == {"app_name": "sims"}
    assert sim.config() == {
        "resources": {"gpu": {"type": ["H100", "A100"], "count": 2}, "cpu": 4.0},
        "limits": {"startup_timeout_s": 600.0},
    }
    assert found.route("other") is None


def test_pyproject_holds_it_as_well(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\n\n[tool.hud.runtime]\ndefault = "docker"\n'
    )
    assert read_project(tmp_path).runtime_default == "docker"
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\n\n[tool.hud.runtime]\ndefalt = "docker"\n'
    )
    with pytest.raises(
        ConfigError, match=r"pyproject.toml:5: unknown key 'defalt' in \[runtime\]; did you mean 'default'"
    ):
        read_project(tmp_path)


def test_no_file_is_all_defaults(tmp_path: Path) -> None:
    found = read_project(tmp_path)
    assert found.path is None
    assert found.folder == tmp_path
    assert found.routes == ()


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    assert project(tmp_path).runtime_default is None
    (tmp_path / "hud.toml").write_text('[runtime]\ndefault = "one"\n')
    first = project(tmp_path)
    assert first.runtime_default == "one"
    assert project(tmp_path) is first
    (tmp_path / "hud.toml").write_text('[runtime]\ndefault = "another"\n')
    assert project(tmp_path).runtime_default == "another"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[runtim]\ndefault = "x"\n',
            ":1: unknown key 'runtim' at the top; did you mean 'runtime'?; allowed: agents,",
        ),
        ("# note\n\n[runtime]\ndefault = 3\n", ":4: runtime.default must be text, not a number (3)"),
        ('[runtime.env."a-*"]\nimage = "x"\n', ":1: [runtime.env.\"a-*\"] needs the key 'use'"),
        (
            '[runtime.env.a]\nuse = "x"\nresources = { gpus = 1 }\n',
            ":3: unknown key 'gpus' in [runtime.env.a.resources]; did you mean 'gpu'?; allowed: cpu, gpu,",
        ),
        (
            '[runtime.env.a]\nuse = "x"\n\n[runtime.env.a.resources.gpu]\ncount = 0\n',
            ":5: runtime.env.a.resources.gpu.count must be a whole number of at least 1, not 0",
        ),
        ('plugins.disable = "docker"\n', ":1: plugins.disable must be a list of text, not text ('docker')"),
        ("[plugins]\nstrict = 1\n", ":2: plugins.strict must be true or false, not a number (1)"),
        ("[limits]\nact_s = true\n", ":2: limits.act_s must be a number, not a boolean (True)"),
        ("[limits]\nact_s = -1\n", ":2: limits.act_s must be a number of at least 0, not -1"),
        ("[limits]\nact_s = nan\n", ":2: limits.act_s must be a number of at least 0, not nan"),
        ("[limits]\nmax_steps = 1.5\n", ":2: limits.max_steps must be a whole number, not a number (1.5)"),
        ("[limits]\nacts_s = 1\n", "did you mean 'act_s'?"),
        ('[redact]\npatterns = ["ok", "(("]\n', ":2: redact.patterns: '((' is no regular expression"),
        ('[prices]\n"x-*" = { input = 1 }\n', ":2: [prices.\"x-*\"] needs the key 'output'"),
        ("[runtime\n", "at line 1"),
        ('a = """\n[runtime]\ndefault = 1\n"""\n[runtime]\ndefault = 2\n', ":1: unknown key 'a' at the top"),
    ],
)
def test_a_wrong_file_names_line_close_name_and_allowed_values(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "hud.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_project(tmp_path)
    assert str(tmp_path / "hud.toml") in str(caught.value)
    assert message in str(caught.value)


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "hud.toml").write_bytes(b'[runtime]\ndefault = "\xff"\n')
    with pytest.raises(ConfigError, match=r"hud\.toml is not UTF-8"):
        read_project(tmp_path)
