"""Run the tests of one bug, and those the repository came with, on what the agent left in /workspace.

The code under test runs in a process of its own, which has to say that every test passed: ending early, with
whatever status, is no verdict.
"""

import pathlib
import secrets
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
CHILD = """
import sys, unittest
word = sys.stdin.readline().strip()
sys.path.append({root!r})
suite = unittest.defaultTestLoader.discover({folder!r}, pattern={pattern!r}, top_level_dir={folder!r})
count = suite.countTestCases()
result = unittest.TextTestRunner(stream=sys.stderr).run(suite)
if result.wasSuccessful() and count:
    print(word, result.testsRun == count)
"""


def passes(pattern: str, root: str) -> bool:
    """Whether every test of the files that match passes."""
    word = secrets.token_hex(16)
    code = CHILD.format(folder=str(HERE), pattern=pattern, root=root)
    child = subprocess.run(
        [sys.executable, "-I", "-B", "-c", code],
        input=word,
        text=True,
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    return child.returncode == 0 and child.stdout.strip().endswith(f"{word} True")


if __name__ == "__main__":
    bug, root = sys.argv[1:]
    sys.exit(not (passes(f"test_{bug}.py", root) and passes("test_shelf.py", root)))
