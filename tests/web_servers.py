"""Web servers of this machine for tests: a folder with lists of its files, and a hub with one dataset."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving(handler):
    """A context whose value is the URL of a server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class Folder(SimpleHTTPRequestHandler):
    """What a folder holds. asked: "METHOD path" of each request."""

    def __init__(self, asked, *args, **options):
        self.asked = asked
        super().__init__(*args, **options)

    def send_head(self):
        self.asked.append(f"{self.command} {self.path}")
        return super().send_head()

    def log_message(self, *args):
        pass


def folder(path, asked=None, handler=Folder):
    return serving(partial(handler, [] if asked is None else asked, directory=str(path)))


class Hub(BaseHTTPRequestHandler):
    """What Hugging Face's hub answers about one dataset, whose files are in a folder."""

    def __init__(self, name, root, *args):
        self.dataset, self.root = name, Path(root)
        super().__init__(*args)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if re.fullmatch(rf"/api/datasets/{self.dataset}(/revision/[^/]+)?", path):
            self._answer({"id": self.dataset, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0})
        elif found := re.fullmatch(rf"/api/datasets/{self.dataset}/tree/[^/]+(/.*)?", path):
            inside = self.root / (found[1] or "").strip("/")
            listed = [self._entry(file) for file in sorted(inside.iterdir())] if inside.is_dir() else None
            self._answer(listed, error="EntryNotFound")
        elif found := re.fullmatch(rf"/datasets/{self.dataset}/resolve/[^/]+/(.*)", path):
            file = self.root / found[1]
            self._answer(file.read_bytes() if file.is_file() else None, error="EntryNotFound")
        else:
            self._answer(None, error="RepoNotFound")

    do_HEAD = do_GET

    def _entry(self, file):
        held = file.read_bytes() if file.is_file() else b""
        kind = "file" if file.is_file() else "directory"
        return {"type": kind, "path": str(file.relative_to(self.root)), "size": len(held), "oid": sha1(held)}

    def _answer(self, found, error=""):
        data = b"" if found is None else found if isinstance(found, bytes) else json.dumps(found).encode()
        whole, part = len(data), re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin, end = (int(part[1]), int(part[2] or whole - 1) + 1) if part else (0, whole)
        self.send_response(404 if found is None else 206 if part else 200)
        for key, value in {"ETag": f'"{sha1(data)}"', "X-Repo-Commit": COMMIT, "X-Error-Code": error}.items():
            if value != error or found is None:
                self.send_header(key, value)
        if part:
            self.send_header("Content-Range", f"bytes {begin}-{min(end, whole) - 1}/{whole}")
        self.send_header("Content-Length", str(len(data[begin:end])))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[begin:end])

    def log_message(self, *args):
        pass


def sha1(data):
    return hashlib.sha1(data).hexdigest()


READ = """
import json, sys
from aunet_lightning.data.documents import Report
from aunet_lightning.data.sources import expand

found = []
for entry in json.loads(sys.argv[1]):
    try:
        found += [[one.language, one.text.decode()] for of in expand([entry], "x") for one in of.documents(Report())]
    except ValueError as error:
        found.append(["error", str(error)])
print(json.dumps(found))
"""


def from_hub(name, place, entries):
    """Returns language and text of the documents of entries, or ["error", …], in a process whose hub has one dataset:
    what the folder `hub` in `place` holds."""
    with serving(partial(Hub, name, place / "hub")) as url:
        own = {"HF_ENDPOINT": url, "HF_HOME": str(place / "hf"), "AUNET_CACHE": str(place / "cache")}
        command = [sys.executable, "-c", READ, json.dumps(entries)]
        done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
