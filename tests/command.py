"""What a process of `processes.ran` does, as a script: tests are no modules to other processes."""

from __future__ import annotations

import os
import runpy
import sys

import huggingface_hub.constants

# These are given as its globals; "err" is empty where stderr goes to stdout.
given = globals()
args: tuple[str, ...] = given["args"]
env: dict[str, str] = given["env"]
os.chdir(given["cwd"])
os.environ.clear()
os.environ.update(env)
sys.path[:0] = [p for p in env.get("PYTHONPATH", "").split(os.pathsep) if p]
sys.argv = ["noahnas", *args]
for number, path in enumerate((os.devnull, given["out"], given["err"])):
    file = os.open(path, os.O_RDWR | os.O_CREAT) if path else os.dup(1)
    if file != number:
        os.dup2(file, number)
        os.close(file)
sys.stdin, sys.stdout = open(0), open(1, "w", encoding="utf-8")  # noqa: SIM115
sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
# It was read when noahnas was imported, before this process began.
huggingface_hub.constants.HF_HUB_OFFLINE = env.get("HF_HUB_OFFLINE") == "1"
runpy.run_module("noahnas", run_name="__main__", alter_sys=True)
