"""A server that counts its imports, and spawns an engine, which spawns a worker."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tuner.configuration import Configuration, Value
from tuner.servers.forking.fork_servers import ForkServers
from tuner.servers.forking.recipe import ForkRecipe
from tuner.servers.launch import LaunchPlan, RunningServer
from tuner.servers.vllm.server import VllmServer

HEAVY = """
import os
with open(os.environ["IMPORTS"], "a") as file:
    file.write("imported\\n")
"""
SERVER = """#!{python}
import atexit, http.server, json, multiprocessing, os, signal, sys, threading, time
import heavy

def said(file):
    return {{"pid": os.getpid(), "file": file, "main": sys.modules["__main__"].__name__,
             "fds": sorted(os.listdir("/proc/self/fd")), "tag": os.environ["TUNER_LAUNCH_TAG"],
             "own": os.environ.get("SOME_SWITCH"), "path": "/of/this/launch" in sys.path}}

def worker(pipe, lock):
    with lock:
        pipe.send(said(__file__))
    pipe.recv()
    sys.exit(5)

def engine(pipe, lock):
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=worker, args=(theirs, lock))
    process.start()
    pipe.send([said(__file__), ours.recv()])
    pipe.recv()
    ours.send(None)
    process.join()
    pipe.send(process.exitcode)
    time.sleep(100)

def main():
    flags = dict(word[2:].split("=", 1) for word in sys.argv[3:] if "=" in word)
    if "refuse" in flags:
        print("ValueError: max_num_seqs is too many", file=sys.stderr, flush=True)
        sys.exit(3)
    if "crash" in flags:
        os.kill(os.getpid(), signal.SIGSEGV)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    lock = context.Lock()
    process = context.Process(target=engine, args=(theirs, lock), name="Engine")
    process.start()
    found = [{{**said(__file__), "argv": sys.argv}}, *ours.recv()]
    ours.send(None)
    codes = [ours.recv(), process.exitcode, process.is_alive()]
    def stop(*_):
        process.terminate()
        process.join()
        print("the engine ended with", process.exitcode, flush=True)
        sys.exit(0)
    atexit.register(lambda: print("atexit", flush=True))
    signal.signal(signal.SIGTERM, stop)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            names = [{{"id": flags["served-model-name"]}}]
            body = json.dumps({{"data": names, "found": found, "codes": codes}}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer((flags["host"], int(flags["port"])), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        signal.pause()

if __name__ == "__main__":
    main()
"""


@dataclass(frozen=True, slots=True)
class ForkableServer(VllmServer):
    """The script, as a server whose processes import one heavy module."""

    @property
    def forks(self) -> ForkRecipe:
        """The module, and one that this version does not have."""
        return ForkRecipe(sys.executable, ("heavy", "not_in_this_version"))


class Bench:
    """A server that counts its imports, launched with fork servers or without."""

    def __init__(self, folder: Path, run_tag: str) -> None:
        self.folder = folder
        self.run_tag = run_tag
        (folder / "modules").mkdir()
        (folder / "modules" / "heavy.py").write_text(HEAVY)
        self.script = folder / "server"
        self.script.write_text(SERVER.format(python=sys.executable))
        self.script.chmod(0o700)
        recipe = ForkableServer((str(self.script),), "0").forks
        self.forks = ForkServers(run_tag, folder / "logs" / "forks", recipe)

    def plan(self, flags: dict[str, Value] | None = None, **environment: str) -> LaunchPlan:
        path = os.pathsep.join([str(self.folder / "modules"), "/of/this/launch"])
        variables = {"IMPORTS": str(self.folder / "imports"), "PYTHONPATH": path, **environment}
        return LaunchPlan(
            server=ForkableServer((str(self.script),), "0", variables=variables),
            model="tiny",
            configuration=Configuration(flags=flags or {}),
            run_tag=self.run_tag,
            log_path=self.folder / "logs" / "server.log",
            startup_deadline_s=60.0,
            forks=self.forks,
        )

    @property
    def imports(self) -> int:
        path = self.folder / "imports"
        return len(path.read_text().splitlines()) if path.exists() else 0


async def answer_of(server: RunningServer) -> dict[str, Any]:
    """Return what the three processes of a server said of themselves."""
    async with aiohttp.ClientSession() as session, session.get(f"{server.base_url}/x") as reply:
        found: dict[str, Any] = json.loads(await reply.read())
        return found
