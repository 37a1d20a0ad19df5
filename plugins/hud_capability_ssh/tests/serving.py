"""Serve one workspace until standard input ends; run as a program, also as another user, by the trust tests.

`python serving.py ROOT ENGINE OPTIONS_AS_JSON` prints the capability as one line of JSON. Its environment and its
memory hold a secret, which nothing inside may find.
"""

from __future__ import annotations

import asyncio
import json
import sys

from hud_capability_ssh.workspace import Workspace


async def main() -> None:
    root, engine, options = sys.argv[1:4]
    workspace = Workspace(root, engine=engine, **json.loads(options))  # type: ignore[arg-type]
    (capability,) = await workspace.start()
    print(json.dumps(capability.to_manifest()), flush=True)
    loop = asyncio.get_running_loop()
    try:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            match line.strip():
                case "seal":
                    await workspace.seal(keep_agent_processes=False)
                    print(json.dumps("sealed"), flush=True)
                case command:
                    result = await workspace.grading_run(command)
                    print(json.dumps([result.how, result.exit_status, result.stdout]), flush=True)
    finally:
        await workspace.stop()


asyncio.run(main())
