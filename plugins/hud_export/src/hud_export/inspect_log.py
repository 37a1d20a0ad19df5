"""A job as a log of Inspect: a zip of JSON that `inspect view` shows.

Source: inspect_ai 0.3.285, `log/_recorders/eval.py` (names of the parts) and `log/_log.py` (fields), 2026-11.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hud.store.payload import json_text
from hud.store.reader import JobFile
from hud_export.messages import chat_messages, text_of

LOG_VERSION = 2
SCORER = "hud"


def write_inspect_log(file: JobFile, target: Path) -> None:
    """Write the finished rollouts of a job as samples; one without a reward has an error and no score."""
    job = file.job()
    lights = file.runs(state="finished")
    epochs: Counter[str] = Counter()
    summaries = []
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        start = _header(file, job, max(Counter(light["slug"] for light in lights).values(), default=1))
        _put(out, "_journal/start.json", {key: start[key] for key in ("version", "eval", "plan")})
        for light in lights:
            epochs[light["slug"]] += 1
            sample = _sample(file.record(light["run_id"]), light, epochs[light["slug"]])
            _put(out, f"samples/{sample['id']}_epoch_{sample['epoch']}.json", sample)
            summaries.append(_summary(sample))
        _put(out, "summaries.json", summaries)
        _put(out, "header.json", start)


def _put(out: zipfile.ZipFile, name: str, value: Any) -> None:
    out.writestr(name, json.dumps(json.loads(json_text(value)), ensure_ascii=True))


def _header(file: JobFile, job: dict[str, Any], epochs: int) -> dict[str, Any]:
    sums = file.summary()
    slugs = [task["slug"] for task in file.tasks()]
    model, name = str(job.get("agent") or "unknown"), str(job.get("name") or "job")
    job_id = str(job.get("job_id") or file.path.stem)
    ended = job.get("ended_at")
    status = "started" if ended is None else "cancelled" if job.get("cancelled") else "success"
    metrics = {}
    if sums["mean_reward"] is not None:
        metrics["mean"] = {"name": "mean", "value": sums["mean_reward"], "params": {}}
    usage = {
        model: {
            "input_tokens": sums["prompt_tokens"],
            "output_tokens": sums["completion_tokens"],
            "total_tokens": sums["prompt_tokens"] + sums["completion_tokens"],
        }
    }
    return {
        "version": LOG_VERSION,
        "status": status,
        "eval": {
            "eval_id": job_id,
            "run_id": job_id,
            "created": _time(job.get("started_at") or 0.0),
            "task": name,
            "task_id": job_id,
            "task_version": 0,
            "task_attribs": {},
            "task_args": {},
            "solver": model,
            "dataset": {
                "name": str(job.get("source") or name),
                "samples": len(slugs),
                "sample_ids": slugs,
                "shuffled": False,
            },
            "model": model,
            "model_args": {},
            "config": {"epochs": epochs},
            "packages": {},
            "metadata": {"hud_job": {key: value for key, value in job.items() if key != "options"}},
        },
        "plan": {"name": "plan", "steps": [{"solver": model, "params": {}}], "config": {}},
        "results": {
            "total_samples": sums["runs"],
            "completed_samples": sums["graded"],
            "scores": [
                {
                    "name": SCORER,
                    "scorer": SCORER,
                    "scored_samples": sums["graded"],
                    "unscored_samples": sums["errors"],
                    "params": {},
                    "metrics": metrics,
                }
            ],
        },
        "stats": {
            "started_at": _time(job.get("started_at") or 0.0),
            "completed_at": "" if ended is None else _time(ended),
            "model_usage": usage if sums["prompt_tokens"] or sums["completion_tokens"] else {},
        },
    }


def _sample(record: dict[str, Any], light: dict[str, Any], epoch: int) -> dict[str, Any]:
    task = record.get("task") or {}
    messages = chat_messages(record.get("steps") or ())
    prompt = [message for message in messages if message["role"] in ("system", "user")][:8]
    answer = record.get("content")
    model = light["agent"] or "unknown"
    usage = {
        "input_tokens": light["prompt_tokens"],
        "output_tokens": light["completion_tokens"],
        "total_tokens": light["prompt_tokens"] + light["completion_tokens"],
    }
    sample: dict[str, Any] = {
        "id": light["slug"] or light["run_id"],
        "epoch": epoch,
        "input": prompt or f"{task.get('env', '')}:{task.get('id', '')}",
        "target": "",
        "messages": messages,
        "output": _output(model, answer, messages),
        "scores": {},
        "metadata": {
            "run_id": light["run_id"],
            "group_id": light["group_id"],
            "env": light["env"],
            "task": task,
            "status": light["status"],
            "stop_reason": light["stop_reason"],
            "attempts": light["attempt"],
            "phases_s": record.get("phases_s"),
        },
        "store": {},
        "events": [],
        "model_usage": {model: usage} if usage["total_tokens"] else {},
        "started_at": _time(light["started_at"]),
        "completed_at": _time(light["ended_at"] or light["started_at"]),
        "total_time": light["seconds"],
        "working_time": light["seconds"],
        "uuid": light["run_id"],
        "attachments": {},
    }
    if light["reward"] is not None:
        grade = record.get("grade") or {}
        sample["scores"] = {
            SCORER: {
                "value": light["reward"],
                "answer": None if answer is None else text_of(answer),
                "explanation": grade.get("content"),
                "metadata": {key: value for key, value in grade.items() if key not in ("score", "content")},
            }
        }
    failure = record.get("failure") or {}
    if light["reward"] is None:
        trace = str(failure.get("traceback") or "")
        why = light["error"] or record.get("grade_note") or "not graded"
        sample["error"] = {"message": str(why), "traceback": trace, "traceback_ansi": trace}
    return sample


def _output(model: str, answer: Any, messages: list[dict[str, Any]]) -> dict[str, Any]:
    last = next((message for message in reversed(messages) if message["role"] == "assistant"), None)
    message = (
        {"role": "assistant", "content": text_of(answer), "source": "generate"}
        if answer is not None
        else last
    )
    choices = [] if message is None else [{"message": message, "stop_reason": "stop"}]
    return {"model": model, "choices": choices}


def _summary(sample: dict[str, Any]) -> dict[str, Any]:
    """Return what a list of samples shows of one."""
    names = (
        "id",
        "epoch",
        "target",
        "model_usage",
        "started_at",
        "completed_at",
        "total_time",
        "working_time",
        "uuid",
    )
    shown = sample["input"] if isinstance(sample["input"], str) else text_of(sample["input"][-1]["content"])
    return {
        **{name: sample[name] for name in names},
        "input": shown[:1000],
        "metadata": {"run_id": sample["metadata"]["run_id"], "env": sample["metadata"]["env"]},
        "scores": {
            name: {"value": score["value"], "answer": (score["answer"] or "")[:1000] or None}
            for name, score in sample["scores"].items()
        },
        "error": sample["error"]["message"] if "error" in sample else None,
        "completed": True,
        "message_count": len(sample["messages"]),
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
