"""A rollout's record as lines for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hud.cli.jobline import age, money
from hud.cli.table import duration, number
from hud.cli.terminal import Style, one_line, safe

MOST_LINES = 60
MOST_CHARS = 8_000
"""Of one text: its head and its tail are shown."""
DIFF_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


class Transcript:
    """Renders start, steps and end. Everything a rollout holds is made safe for the terminal first."""

    def __init__(self, *, colours: bool, full: bool) -> None:
        self._style = Style(colours)
        self._full = full
        self._prompt_shown = False

    def begin(self, record: Mapping[str, Any]) -> Iterator[str]:
        """Yield what is known when it starts."""
        style = self._style
        environment = record.get("environment") or {}
        task = record.get("task") or {}
        served = " ".join(
            str(part)
            for part in (environment.get("name") or task.get("env"), environment.get("version"))
            if part
        )
        yield f"{style('run', 'bold')} {style(record.get('run_id'))}  {style(record.get('slug'), 'bold')}"
        job = str(record.get("job_id"))[:8]
        yield f"  of job {style(job)}, environment {style(served)}, agent {style(record.get('agent'))}"
        if record.get("runtime"):
            yield f"  on {style(str(record['runtime']).partition('?')[0], 'dim')}"
        if task.get("args"):
            yield f"  {style('args', 'dim')} {style(one_line(json.dumps(task['args'], ensure_ascii=False), 400))}"
        for attempt in record.get("attempts_before") or ():
            failure = attempt.get("failure") or {}
            why = one_line(f"{failure.get('type')}: {failure.get('message')}", 160)
            where = f" in {failure['phase']}" if failure.get("phase") else ""
            yield style(f"  attempt {attempt.get('attempt')} was lost{where}: {why}", "yellow")

    def step(self, step: Mapping[str, Any], indent: int = 0) -> Iterator[str]:
        """Yield one step."""
        kind = _kind(step)
        if kind == "agent":
            lines = self._turn(step)
        elif kind == "tool":
            lines = self._tool(step)
        elif kind == "subagent":
            lines = self._subagent(step)
        else:
            lines = self._other(step)
        pad = "  " * indent
        for text in lines:
            yield "\n".join(f"{pad}{line}" for line in text.split("\n")) if pad else text

    def end(self, record: Mapping[str, Any]) -> Iterator[str]:
        """Yield how it ended: answer, files, grade, failure, usage, times."""
        style = self._style
        if record.get("state") == "running":
            still = (
                "still running"
                if record.get("written", True)
                else "its job was killed; hud eval --resume goes on"
            )
            yield ""
            yield style(f"{still}; begun {age(record.get('started_at') or 0.0)} ago", "cyan")
            return
        if record.get("content") not in (None, ""):
            yield self._title("answer", "")
            yield self._body(_text(record["content"]))
        yield from self._files(record.get("grade") or {})
        yield from self._grade(record)
        yield from self._failures(record)
        yield from self._numbers(record)

    def _turn(self, step: Mapping[str, Any]) -> Iterator[str]:
        style = self._style
        usage = step.get("usage") or {}
        notes = [str(step["model"])] if step.get("model") else []
        notes += [_took(step)] if _took(step) else []
        if usage:
            cached = f" ({usage['cached_tokens']:,} cached)" if usage.get("cached_tokens") else ""
            notes.append(
                f"{usage.get('prompt_tokens', 0):,}{cached} + {usage.get('completion_tokens', 0):,} tokens"
            )
            notes += [money(usage["cost_usd"])] if usage.get("cost_usd") else []
        purpose = (step.get("extra") or {}).get("purpose")
        yield self._title(
            "agent" if step.get("source", "agent") == "agent" else str(step["source"]), "  ".join(notes), step
        )
        if purpose:
            yield f"  {style(purpose, 'dim')}"
        if step.get("reasoning"):
            yield self._body(step["reasoning"], "dim")
        if step.get("content"):
            yield self._body(step["content"])
        for call in step.get("tool_calls") or ():
            yield f"  {style('calls ' + str(call.get('name')), 'magenta')}"
            yield self._body(_arguments(call.get("arguments")), indent=4)
        for what in ("refusal", "error"):
            if step.get(what):
                yield self._body(f"{what}: {step[what]}", "red")

    def _tool(self, step: Mapping[str, Any]) -> Iterator[str]:
        call, result = step.get("call") or {}, step.get("result") or {}
        failed = bool(result.get("isError"))
        name = f"{call.get('name')}{' (error)' if failed else ''}"
        yield self._title("tool", f"{name}  {_took(step)}".rstrip(), step, "red" if failed else "blue")
        shown = _text(result.get("content"))
        if not shown and result.get("structuredContent") is not None:
            shown = json.dumps(result["structuredContent"], ensure_ascii=False, indent=2)
        yield self._body(shown or "(nothing)", *(() if shown else ("dim",)))
        if step.get("error"):
            yield self._body(f"error: {step['error']}", "red")

    def _subagent(self, step: Mapping[str, Any]) -> Iterator[str]:
        yield self._title("subagent", str((step.get("extra") or {}).get("name", "")), step)
        for inner in (step.get("subagent") or {}).get("steps") or ():
            yield from self.step(inner, indent=1)

    def _other(self, step: Mapping[str, Any]) -> Iterator[str]:
        call = step.get("task_call") or {}
        reply = call.get("result")
        result: Mapping[str, Any] = reply if isinstance(reply, Mapping) else {}
        if call.get("phase") == "setup":
            yield self._title("prompt", "", step)
            yield self._body(_prompt(result.get("prompt")))
        elif call.get("phase") == "evaluate":
            return  # told at the end, with its parts
        else:
            yield self._title(str(step.get("source", "step")), "", step)
            for message in step.get("messages") or ():
                yield self._body(f"{message.get('role', '')}: {_text(message.get('content'))}")
            if step.get("extra"):
                yield self._body(_arguments(step["extra"]), "dim")
        if step.get("error"):
            yield self._body(f"error: {step['error']}", "red")

    def _files(self, grade: Mapping[str, Any]) -> Iterator[str]:
        for key, known in (grade.get("info") or {}).items():
            if not (key.startswith("workspace:") and isinstance(known, Mapping) and known.get("files")):
                continue
            yield self._title("files", f"{key.partition(':')[2]}, {len(known['files'])} changed")
            for change in known["files"]:
                mark = {"created": "+", "added": "+", "deleted": "-", "removed": "-"}.get(
                    str(change.get("kind")), "~"
                )
                colour = DIFF_COLOURS.get(mark, "yellow")
                note = f"  ({change['note']})" if change.get("note") else ""
                size = f"  {change['size']:,} bytes" if isinstance(change.get("size"), int) else ""
                named = self._style(f"{mark} {change.get('path')}", colour)
                yield f"  {named}{self._style(size + note, 'dim')}"
                if change.get("diff"):
                    yield self._diff(str(change["diff"]))

    def _diff(self, text: str) -> str:
        lines = [
            f"    {self._style(line, *([DIFF_COLOURS[line[0]]] if line[:1] in DIFF_COLOURS else []))}"
            for line in self._cut(safe(text)).split("\n")
        ]
        return "\n".join(lines)

    def _grade(self, record: Mapping[str, Any]) -> Iterator[str]:
        style = self._style
        reward = record.get("reward")
        if reward is None:
            yield self._title(
                "grade", f"none: {one_line(record.get('grade_note') or 'not graded', 200)}", colour="red"
            )
            return
        grade = record.get("grade") or {}
        yield self._title("grade", number(reward), colour="green" if reward >= 1.0 else "yellow")
        if grade.get("content"):
            yield self._body(grade["content"])
        yield from self._parts(grade.get("subscores") or (), 1)
        facts = {
            key: value
            for key, value in (grade.get("info") or {}).items()
            if not str(key).startswith("workspace:")
        }
        if not self._full and isinstance(facts.get("judge"), list):
            for account in facts.pop("judge"):
                yield from self._verdicts(account)
        if facts:
            yield self._body(_arguments(facts), "dim")
        calls = (record.get("extra") or {}).get("host_calls") or ()
        if calls:
            used = [call.get("usage") or {} for call in calls]
            tokens = sum(u.get("prompt_tokens", 0) + u.get("completion_tokens", 0) for u in used)
            costs = [u["cost_usd"] for u in used if u.get("cost_usd") is not None]
            cost = sum(costs) if len(costs) == len(used) else None
            told = f"{len(calls)} model calls by graders, {tokens:,} tokens, {money(cost)}"
            yield f"  {style(told, 'dim')}"

    def _verdicts(self, account: Any) -> Iterator[str]:
        """Tell what a judge said; its prompts and raw replies are for --full and --json."""
        for item in account.get("criteria") or [account] if isinstance(account, Mapping) else ():
            if isinstance(item, Mapping) and "verdict" in item:
                name = item.get("name") or item.get("grader")
                said = one_line(
                    f"{name}: {item['verdict']}, {item.get('reason')}  ({item.get('model')})", 200
                )
                yield f"  {self._style('judge', 'dim')} {said}"

    def _parts(self, parts: Sequence[Any], depth: int) -> Iterator[str]:
        for part in parts:
            if isinstance(part, Mapping):
                value = part.get("value", part.get("score"))
                shown = number(value) if isinstance(value, (int, float)) else safe(value)
                weight = self._style(f"x {part.get('weight', 1)}", "dim")
                yield f"{'  ' * depth}{self._style(part.get('name'))}  {shown}  {weight}"
                yield from self._parts(part.get("children") or (), depth + 1)

    def _failures(self, record: Mapping[str, Any]) -> Iterator[str]:
        failures = [
            ("failed", record.get("failure")),
            *(("also", problem) for problem in record.get("problems") or ()),
        ]
        for word, failure in failures:
            if not failure:
                continue
            yield self._title(
                word, f"in {failure.get('phase') or 'the rollout'}, {failure.get('kind')}", colour="red"
            )
            yield self._body(f"{failure.get('type')}: {failure.get('message')}", "red")
            if failure.get("traceback"):
                yield self._body(failure["traceback"], "dim")
            for hint in failure.get("hints") or ():
                yield f"  {self._style(f'hint: {hint}', 'yellow')}"

    def _numbers(self, record: Mapping[str, Any]) -> Iterator[str]:
        usage = record.get("usage") or {}
        if usage:
            yield self._title(
                "usage",
                f"{usage.get('llm_call_count', 0)} model calls, {usage.get('prompt_tokens', 0):,} "
                f"({usage.get('cached_tokens', 0):,} cached) + {usage.get('completion_tokens', 0):,} tokens, "
                f"{money(usage.get('cost_usd'))}",
            )
        phases = record.get("phases_s") or {}
        if phases:
            yield self._title(
                "phases", ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in phases.items())
            )
        spans = (record.get("extra") or {}).get("spans") or ()
        if spans:
            yield self._title("spans", str(len(spans)))
            for span in spans[: None if self._full else 20]:
                took = duration(max((span.get("ended_at") or 0) - (span.get("started_at") or 0), 0.0))
                error = f"  {span['error']}" if span.get("error") else ""
                yield f"  {self._style(span.get('name'))}  {took}{self._style(one_line(error, 120), 'red')}"
            if not self._full and len(spans) > 20:
                yield f"  and {len(spans) - 20} more"

    def _title(
        self, word: str, note: str, step: Mapping[str, Any] | None = None, colour: str = "cyan"
    ) -> str:
        at = "" if step is None or step.get("step_id") is None else f" {step['step_id']}"
        return f"\n{self._style(f'{word}{at}', 'bold', colour)}  {self._style(note, 'dim')}".rstrip()

    def _body(self, text: object, *styles: str, indent: int = 2) -> str:
        pad = " " * indent
        shown = self._style(self._cut(safe(text).rstrip("\n")), *styles)
        return "\n".join(f"{pad}{line}" if line else "" for line in shown.split("\n"))

    def _cut(self, text: str) -> str:
        if self._full:
            return text
        if len(text) > MOST_CHARS:
            half = MOST_CHARS // 2
            text = f"{text[:half]}\n… {len(text) - 2 * half:,} characters more; --full shows them …\n{text[-half:]}"
        lines = text.split("\n")
        if len(lines) > MOST_LINES:
            half = MOST_LINES // 2
            left = len(lines) - 2 * half
            lines = [*lines[:half], f"… {left:,} lines more; --full shows them …", *lines[-half:]]
        return "\n".join(lines)


def _kind(step: Mapping[str, Any]) -> str:
    """Return what a step is; those within a subagent's are told apart by their fields alone."""
    if "kind" in step:
        return str(step["kind"])
    marks = {"call": "tool", "subagent": "subagent", "tool_calls": "agent"}
    return next((kind for mark, kind in marks.items() if mark in step), "step")


def _took(step: Mapping[str, Any]) -> str:
    begun, ended = step.get("started_at"), step.get("ended_at")
    return duration(ended - begun) if begun and ended and ended > begun else ""


def _prompt(prompt: object) -> str:
    if isinstance(prompt, list):
        return "\n".join(
            f"{message.get('role', 'user')}: {_text(message.get('content'))}"
            if isinstance(message, Mapping)
            else str(message)
            for message in prompt
        )
    return _text(prompt.get("content") if isinstance(prompt, Mapping) else prompt)


def _text(content: object) -> str:
    """Return content as text, of an image what it is and its size."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(_block(block) for block in content)
    if isinstance(content, Mapping) and "type" in content:
        return _block(content)
    return _arguments(content)


def _block(block: object) -> str:
    if not isinstance(block, Mapping):
        return str(block)
    if block.get("type") == "text" or ("text" in block and "data" not in block):
        return str(block.get("text", ""))
    if "data" in block:
        size = len(str(block["data"])) * 3 // 4
        return f"[{block.get('type', 'data')} {block.get('mimeType', '')}, {size:,} bytes]"
    return _arguments(block)


def _arguments(value: object) -> str:
    """Return a tool's arguments readably: long texts on lines of their own, the rest as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        lines = []
        for key, item in value.items():
            shown = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False, default=str)
            inner = f"\n{shown}" if "\n" in shown else f" {shown}"
            lines.append(f"{key}:{inner}")
        return "\n".join(lines)
    return json.dumps(value, ensure_ascii=False, default=str)
