"""Known secrets never reach a file: found in the text of a record on its way in."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

MASK = "[redacted]"
SHORTEST = 8
"""Characters a value must have to be searched for; shorter ones would hide ordinary words."""

PART_BYTES = 4 * 1024 * 1024

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(?:_|$)", re.IGNORECASE
)
_EDGE = r"(?:(?<![A-Za-z0-9_])|(?<=\\[bfnrt])|(?<=\\u[0-9a-fA-F]{4})|(?<=[\[0-9;]m))"
"""Where a word begins in a JSON text: also behind an escape (a line break is written with an n) and a colour's m."""
_PATTERNS = {
    # A key that was cut off goes to the end of its string.
    "-----BEGIN ": r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----"
    r'(?:[^"\\]|\\.?)*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|(?=")|\Z)',
    "sk-": _EDGE + r"sk-(?:ant-|proj-|or-)?[A-Za-z0-9_-]{20,}",
    "AIza": _EDGE + r"AIza[0-9A-Za-z_-]{35}",
    "AKIA": _EDGE + r"AKIA[0-9A-Z]{16}\b",
    "ASIA": _EDGE + r"ASIA[0-9A-Z]{16}\b",
    "gh": _EDGE + r"gh[pousr]_[A-Za-z0-9]{36,}",
    "github_pat_": _EDGE + r"github_pat_[A-Za-z0-9_]{22,}",
    "hf_": _EDGE + r"hf_[A-Za-z0-9]{30,}",
    "xox": _EDGE + r"xox[abprs]-[A-Za-z0-9-]{10,}",
    "eyJ": _EDGE + r"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
}
"""Forms of provider keys, private keys and web tokens, as their issuers publish them, by what they begin with."""


def secret_values(
    environment: Mapping[str, str] | None = None, *, names: Iterable[str] = (), values: Iterable[str] = ()
) -> set[str]:
    """Return the values to hide: of variables that are named like secrets or in `names`, and `values` themselves."""
    environment = os.environ if environment is None else environment
    wanted = set(names)
    found = {v for k, v in environment.items() if k in wanted or _SECRET_NAME.search(k)}
    found |= _header_values(environment)
    return {value for value in {*found, *values} if len(value) >= SHORTEST}


def _header_values(environment: Mapping[str, str]) -> set[str]:
    """Return the values in `OTEL_EXPORTER_OTLP_HEADERS` and its like, which hold the key of a tracing backend.

    Source: OpenTelemetry Protocol Exporter: `key=value` pairs by commas, values percent-encoded.
    """
    found: set[str] = set()
    for name, text in environment.items():
        if name.startswith("OTEL_EXPORTER_OTLP_") and name.endswith("HEADERS"):
            for pair in text.split(","):
                value = unquote(pair.partition("=")[2]).strip()
                found |= {value, value.rpartition(" ")[2]}  # `Bearer xyz`: the token alone too
    return found


_told: set[str] = set()
"""What `hide_values_of` was told, as it looks in JSON."""


def hide_values_of(variables: Mapping[str, str]) -> None:
    """Have every redactor of this process hide, from now on, the values of variables named like secrets."""
    for secret in secret_values(variables):
        _told.update(_in_json(secret))


def _in_json(secret: str) -> set[str]:
    import json

    return {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}


def project_redactor(folder: Path | None = None) -> Callable[[str], str]:
    """Return the redactor of this process: variables named like secrets, also of `.env`, and [redact] of hud.toml.

    The project is that of `folder`, by default of the working folder.
    """
    from hud.settings import project
    from hud.settings.variables import all_variables

    table = project(folder).redact
    secrets: set[str] = set()
    for variables in all_variables(folder=folder):
        secrets |= secret_values(variables, names=table.env)
    return redactor(secrets, table.patterns, table.keys)


def _without(text: str, beginning: str, form: re.Pattern[str]) -> str:
    """Return `form.sub(MASK, text)` for a form that begins so; looking for that alone is fast in megabytes of noise."""
    at, end, kept = text.find(beginning), 0, []
    while at >= 0:
        found = form.match(text, at)
        if found is not None:
            kept += [text[end:at], MASK]
            end = found.end()
        at = text.find(beginning, max(at + 1, end))
    return "".join([*kept, text[end:]]) if kept else text


def redactor(
    secrets: Iterable[str], patterns: Iterable[str] = (), keys: Iterable[str] = ()
) -> Callable[[str], str]:
    """Return a function that replaces every secret in a JSON text by a mark, also where it is escaped.

    `patterns` are a project's own regular expressions; they see the JSON text. Of fields named in `keys`, in any
    case, a text or number is replaced.
    """
    import json

    literal: set[str] = set()
    for secret in secrets:
        literal |= _in_json(secret)
    longest_first = sorted(literal, key=len, reverse=True)
    known = [(beginning, re.compile(pattern, re.DOTALL)) for beginning, pattern in _PATTERNS.items()]
    own = [re.compile(pattern) for pattern in patterns]
    named = "|".join(re.escape(json.dumps(key)[1:-1]) for key in keys)
    value = r'(?:"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*)'
    fields = re.compile(rf'("(?:{named})"\s*:\s*){value}', re.IGNORECASE) if named else None

    def mask(text: str) -> str:
        for secret in (*longest_first, *_told) if _told else longest_first:
            if secret in text:
                text = text.replace(secret, MASK)
        for beginning, form in known:
            text = _without(text, beginning, form)
        for form in own:
            text = form.sub(MASK, text)
        return fields.sub(rf'\1"{MASK}"', text) if fields else text

    return mask


def clean_json(text: str, mask: Callable[[str], str]) -> str:
    """Return a JSON text without secrets that is still JSON.

    Where a pattern runs on beyond the string it began in, or a number holds a secret's digits, what is masked is each
    value by itself.
    """
    import json

    from hud.store.payload import json_text

    masked = mask(text)
    if masked == text or _is_json(masked):
        return masked
    return json_text(_cleaned(json.loads(text), mask))


def clean_file(path: Path, mask: Callable[[str], str]) -> None:
    """Take secrets out of a file of lines, in place; one without any is not touched.

    Raises:
        OSError: it cannot be read or written.
    """
    with path.open("r+b") as file, tempfile.SpooledTemporaryFile(PART_BYTES) as cleaned:
        found = False
        while part := file.read(PART_BYTES):
            part += file.readline(PART_BYTES)
            text = part.decode("utf-8", "surrogateescape")
            masked = mask(text)
            found = found or masked != text
            cleaned.write(masked.encode("utf-8", "surrogateescape"))
        if found:
            cleaned.seek(0)
            file.seek(0)
            shutil.copyfileobj(cleaned, file)
            file.truncate()


def _is_json(text: str) -> bool:
    import json

    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _cleaned(value: Any, mask: Callable[[str], str]) -> Any:
    import json

    if isinstance(value, dict) and len(value) > 1:
        parts = [_cleaned({key: item}, mask) for key, item in value.items()]
        return {key: item for part in parts for key, item in part.items()}
    if isinstance(value, list) and len(value) > 1:
        return [_cleaned(item, mask) for item in value]
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    masked = mask(text)
    if _is_json(masked):
        return json.loads(masked)
    if isinstance(value, dict):
        return {mask(key): _cleaned(item, mask) for key, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item, mask) for item in value]
    if isinstance(value, str):
        return mask(value)
    return MASK if masked == MASK else value
