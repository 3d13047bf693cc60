"""Starts an exporter for the scripts beside this file, in the one way that all of them use."""

import contextlib
import pathlib
import re
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = ROOT / "target" / "debug" / "kqproc_exporter"
# The flags of every exporter that a script starts.
FLAGS = ["--web.listen-address=127.0.0.1:0"]


@contextlib.contextmanager
def running(binary, *args):
    """An exporter with these arguments and FLAGS: its process and its URL. It is killed when the block is left."""
    process = subprocess.Popen([binary, *args, *FLAGS], stderr=subprocess.PIPE, text=True)
    try:
        log = ""
        for line in process.stderr:
            log += line
            if found := re.search(r"msg=listening address=(\S+)", line):
                break
        else:
            sys.exit(f"{sys.argv[0]}: the exporter does not listen:\n{log}")
        # A full pipe would stop it.
        threading.Thread(target=lambda: [None for _ in process.stderr], daemon=True).start()
        yield process, f"http://{found[1]}"
    finally:
        process.kill()
        process.wait()
