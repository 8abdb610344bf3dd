"""A fake Hub on this machine: it answers as huggingface.co does, and with faults on request.

    with Hub() as hub:
        repo = hub.add("owner/model", {"model.gguf": b"...", "docs/README.md": b"..."})
        hub.fault("drop", 5_000_000, where="cdn", times=2)
        ...  # HF_ENDPOINT = hub.url
        assert [r.range for r in hub.log if r.where == "cdn"] == [None, "bytes=5000000-"]

Two origins, as in reality: `url` knows repositories and tokens; `cdn_url` has large files under
signed addresses and answers 400 if a token reaches it. As a process, on a folder that has
repositories as owner/name: `python tests/hub.py FOLDER [--fault KIND=N@WHERE*TIMES ...]`; it prints
its address and the commits, and GET /__log gives the log.

| fault     | n       | what happens to an answer                                      |
|-----------|---------|----------------------------------------------------------------|
| drop      | bytes   | the connection is closed after n bytes of the body             |
| reset     | bytes   | the same, by a TCP reset                                       |
| stall     | bytes   | nothing more is sent after n bytes                             |
| slow      | bytes/s | the body trickles                                              |
| corrupt   | offset  | the byte at this offset of the file is wrong                   |
| short     | bytes   | the file is n bytes shorter, and the headers say so            |
| long      | bytes   | the file is n bytes longer, and the headers say so             |
| norange   |         | Range is ignored: 200 and everything                           |
| nolength  |         | there is no Content-Length; the connection closes at the end   |
| noifrange |         | If-Range is ignored: 206, even if the file has changed         |
| etag      |         | the ETag differs each time                                     |
| noheader  |         | X-Repo-Commit, ETag and X-Linked-* are missing                 |
| html      |         | a web page, as from a network that requires a login            |
| status    | code    | this status instead of an answer; retry_after adds Retry-After |
"""

import argparse
import collections
import contextlib
import functools
import hashlib
import itertools
import json
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

TOKEN, NO_GRANT = "hf_ok", "hf_nogrant"  # any other token is invalid
SMALL = 10_000  # smaller files are in git, not in LFS
PAGE = 1000  # entries of a tree in one answer
MIB = 1 << 20


def pattern(path: Path, size: int, seed: int = 0) -> Path:
    """A file of `size` bytes in which no two MiB are the same, written fast."""
    block = bytearray(random.Random(seed).randbytes(MIB))
    with path.open("wb") as file:
        for begin in range(0, size, MIB):
            block[:8] = begin.to_bytes(8, "big")
            file.write(block[: size - begin])
    return path


class File:
    """The content of one file, as bytes or as a file on disk."""

    def __init__(self, content: bytes | Path) -> None:
        self.content = content
        self.size = content.stat().st_size if isinstance(content, Path) else len(content)
        self.lfs = self.size >= SMALL

    @functools.cached_property
    def etag(self) -> str:
        """The sha256 of a large file, git's sha1 of a small one."""
        digest = hashlib.sha256() if self.lfs else hashlib.sha1(b"blob %d\0" % self.size)
        for part in self.parts(0, self.size):
            digest.update(part)
        return digest.hexdigest()

    @property
    def oid(self) -> str:
        """Its name in git; for a large file, a stand-in for the hash of its pointer."""
        return self.etag[:40]

    def parts(self, begin: int, end: int, step: int = MIB) -> Iterator[bytes]:
        if isinstance(self.content, bytes):
            yield self.content[begin:end]
            return
        with self.content.open("rb") as file:
            file.seek(begin)
            while begin < end and (data := file.read(min(step, end - begin))):
                begin += len(data)
                yield data


@dataclass
class Repo:
    """A repository with one commit. `info` is added to what model_info says."""

    name: str
    files: dict[str, File]
    commit: str
    private: bool = False
    gated: bool = False
    info: dict[str, Any] = field(default_factory=dict)


@dataclass
class Fault:
    kind: str
    n: int = 0
    where: str = "cdn"  # cdn | resolve | api | any
    path: str = ""  # only in addresses that contain this
    times: int = -1  # how often; -1 always
    retry_after: str = ""


@dataclass
class Request:
    """One line of the log."""

    where: str
    method: str
    path: str
    range: str | None
    token: str | None
    status: int = 0
    sent: int = 0  # bytes of the body


class Hub:
    """Both servers, running until close()."""

    def __init__(self, port: int = 0) -> None:
        self.repos: dict[str, Repo] = {}
        self.renamed: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.log: list[Request] = []
        self.expires = 3600.0  # seconds for which a signed address of the CDN is valid
        self.connections = collections.Counter[str]()  # taken by "hub" and by "cdn"
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._servers = [_Server(self, "hub", port), _Server(self, "cdn", 0)]
        self.url, self.cdn_url = (f"http://127.0.0.1:{s.server_port}" for s in self._servers)

    def add(self, name: str, files: Mapping[str, bytes | Path], **options: Any) -> Repo:
        """Put a repository there, or another commit in its place."""
        contents = {path: File(content) for path, content in sorted(files.items())}
        seen = json.dumps({path: file.etag for path, file in contents.items()})
        commit = hashlib.sha1((name + seen).encode()).hexdigest()
        self.repos[name] = Repo(name, contents, commit, **options)
        return self.repos[name]

    def fault(self, kind: str, n: int = 0, **where: Any) -> None:
        """Add a fault: from now on, answers break in this way."""
        self.faults.append(Fault(kind, n, **where))

    def url_of(self, repo: Repo, path: str) -> str:
        """The address of a file at its commit."""
        return f"{self.url}/{repo.name}/resolve/{repo.commit}/{quote(path)}"

    def take(self, where: str, path: str, *kinds: str) -> Fault | None:
        """The first fault of these kinds for this address. It counts as used once."""
        with self._lock:
            for fault in self.faults:
                here = fault.where in (where, "any") and fault.path in path
                if fault.kind in kinds and here and fault.times:
                    fault.times -= 1
                    return fault
        return None

    def __enter__(self) -> "Hub":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: Hub, where: str, port: int) -> None:
        self.hub, self.where = hub, where
        self.open: set[Any] = set()
        super().__init__(("127.0.0.1", port), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def get_request(self) -> Any:
        connection, address = super().get_request()
        self.open.add(connection)
        self.hub.connections[self.where] += 1
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do not report clients that disconnect."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = 60
    wbufsize = -1  # headers in one packet
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Our own log has it."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.form = parse_qs(self.rfile.read(int(self.headers["Content-Length"] or 0)).decode())
        self.do_GET()

    def do_GET(self) -> None:
        self.hub = self.server.hub
        split = urlsplit(self.path)
        self.query = {k: v[0] for k, v in parse_qs(split.query).items()}
        words = [unquote(word) for word in split.path.strip("/").split("/")]
        if split.path == "/__log":
            return self.json([asdict(request) for request in self.hub.log])
        where = self.server.where
        if where == "hub":
            where = "api" if words[0] == "api" and words[1:2] != ["resolve-cache"] else "resolve"
        self.token = (self.headers["Authorization"] or "").removeprefix("Bearer ") or None
        self.seen = Request(where, self.command, self.path, self.headers["Range"], self.token)
        self.hub.log.append(self.seen)
        if self.fault("html"):
            page = b"<html>Log in to use this network.</html>"
            return self.answer(200, {"Content-Type": "text/html"}, page)
        if fault := self.fault("status"):
            again = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            return self.refuse(fault.n, message="Broken on purpose", **again)
        if where == "cdn":
            return self.cdn(words)
        if words[2:3] == ["resolve"]:  # owner/name/resolve/revision/path...
            return self.resolve("/".join(words[:2]), words[3], "/".join(words[4:]))
        if words[1:2] == ["resolve-cache"]:  # api/resolve-cache/models/owner/name/commit/path...
            return self.resolve("/".join(words[3:5]), words[5], "/".join(words[6:]), cached=True)
        if words == ["api", "models"]:
            return self.json(self.matching())
        if words[:2] != ["api", "models"] or len(words) < 4:
            return self.refuse(404, message="Not here")
        if repo := self.repo("/".join(words[2:4]), content=words[4:] == ["auth-check"]):
            self.api(repo, words[4:])

    def fault(self, *kinds: str) -> Fault | None:
        return self.hub.take(self.seen.where, self.path, *kinds)

    # facts of a repository

    def repo(self, name: str, content: bool) -> Repo | None:
        """The repository, if this token may see it, or, for content, have its files."""
        if new := self.hub.renamed.get(name):
            self.answer(307, {"Location": self.path.replace(name, new, 1)})
            return None
        repo = self.hub.repos.get(name)
        if self.token not in (None, TOKEN, NO_GRANT):
            self.refuse(401, message="Invalid credentials in Authorization header")
        elif repo is None or (repo.private and self.token != TOKEN):
            self.refuse(404 if self.token else 401, "RepoNotFound", "Repository not found")
        elif repo.gated and content and self.token != TOKEN:
            self.refuse(403 if self.token else 401, "GatedRepo", f"Access to {name} is restricted")
        else:
            return repo
        return None

    def api(self, repo: Repo, words: list[str]) -> None:
        route, *rest = words or ["revision"]
        if rest and rest[0] not in ("main", repo.commit):
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {rest[0]}")
        if route == "auth-check":
            return self.json({})
        if route == "refs":
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.commit}
            return self.json({"branches": [main], "converts": [], "tags": []})
        if route == "revision":
            return self.json(self.model_info(repo))
        entries = [self.entry(path, file) for path, file in repo.files.items()]
        if route == "paths-info":
            return self.json([e for e in entries if e["path"] in self.form.get("paths", [])])
        if route == "tree":
            return self.tree(repo, entries, "/".join(rest[1:]))
        self.refuse(404, message="No such route")

    def model_info(self, repo: Repo) -> dict[str, Any]:
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in repo.files]
        if "blobs" in self.query:
            for sibling, file in zip(siblings, repo.files.values(), strict=True):
                sibling |= {"size": file.size, "blobId": file.oid}
                if file.lfs:
                    sibling["lfs"] = {"sha256": file.etag, "size": file.size, "pointerSize": 134}
        return {
            "id": repo.name, "modelId": repo.name, "sha": repo.commit, "private": repo.private,
            "gated": "manual" if repo.gated else False, "tags": [], "downloads": 1,
            "siblings": siblings, **repo.info,
        }  # fmt: skip

    def matching(self) -> list[dict[str, Any]]:
        """What a search finds, the most downloaded first."""
        words = self.query.get("search", "").lower().split()
        found = [
            {"id": n, "modelId": n, "tags": [], "downloads": 1} | repo.info
            | {"gated": "manual" if repo.gated else False}
            for n, repo in self.hub.repos.items()
            if all(word in n.lower() for word in words)
            and ("filter" not in self.query or any(".gguf" in path for path in repo.files))
        ]  # fmt: skip
        found.sort(key=lambda info: -info["downloads"])
        return found[: int(self.query.get("limit", 1000))]

    def entry(self, path: str, file: File) -> dict[str, Any]:
        lfs = {"lfs": {"oid": file.etag, "size": file.size, "pointerSize": 134}} if file.lfs else {}
        return {"type": "file", "path": path, "size": file.size, "oid": file.oid, **lfs}

    def tree(self, repo: Repo, entries: list[dict[str, Any]], folder: str) -> None:
        inside = f"{folder}/" if folder else ""
        entries = [e for e in entries if e["path"].startswith(inside)]
        parents = {str(p) for e in entries for p in Path(e["path"]).parents} - {".", folder}
        entries += [{"type": "directory", "path": p, "oid": "0" * 40, "size": 0} for p in parents]
        if self.query.get("recursive", "").lower() != "true":
            entries = [e for e in entries if "/" not in e["path"].removeprefix(inside)]
        entries.sort(key=lambda e: e["path"])
        begin = int(self.query.get("cursor", 0))
        headers = {}
        if begin + PAGE < len(entries):
            query = f"recursive={self.query.get('recursive', 'false')}&cursor={begin + PAGE}"
            next_ = f"{self.hub.url}{urlsplit(self.path).path}?{query}"
            headers["Link"] = f'<{next_}>; rel="next"'
        self.json(entries[begin : begin + PAGE], headers)

    # files

    def resolve(self, name: str, revision: str, path: str, cached: bool = False) -> None:
        repo = self.repo(name, content=True)
        if repo is None:
            return None
        if revision not in ("main", repo.commit):
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        file = repo.files.get(path)
        headers = {"X-Repo-Commit": repo.commit}
        if file is None:
            return self.refuse(404, "EntryNotFound", "Entry not found", **headers)
        etag = self.etag(file)
        headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(file.size), "ETag": etag}
        if self.fault("noheader"):
            headers = {}
        if file.lfs:
            ends = time.time() + self.hub.expires
            signed = f"{name}/{file.etag}?Expires={ends}&Signature=s"
            headers["Location"] = f"{self.hub.cdn_url}/{signed}"
            return self.answer(302, headers)
        if not cached:
            place = f"/api/resolve-cache/models/{name}/{repo.commit}/{quote(path)}"
            return self.answer(307, headers | {"Location": place})
        self.content(file, headers)

    def cdn(self, words: list[str]) -> None:
        if self.token:
            return self.refuse(400, message="Only one auth mechanism allowed")
        if float(self.query.get("Expires", 0)) < time.time():
            return self.refuse(403, message="Request has expired")
        files = [f for repo in self.hub.repos.values() for f in repo.files.values()]
        file = next((f for f in files if f.etag == words[-1]), None)
        if file is None:
            return self.refuse(404, message="No such key")
        self.content(file, {} if self.fault("noheader") else {"ETag": self.etag(file)})

    def etag(self, file: File) -> str:
        return f'"{random.randbytes(16).hex() if self.fault("etag") else file.etag}"'

    # sending

    def content(self, file: File, headers: dict[str, str]) -> None:
        """The file, or the requested range of it, broken as the faults say."""
        lie = self.fault("short", "long")
        size = file.size + (0 if lie is None else lie.n if lie.kind == "long" else -lie.n)
        begin, end, status = 0, size, 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        same = self.headers["If-Range"] in (None, headers.get("ETag")) or self.fault("noifrange")
        if wanted and same and not self.fault("norange"):
            begin, end, status = int(wanted[1]), min(size, int(wanted[2] or size) + 1), 206
            end = end if wanted[2] else size
            if begin >= size:
                return self.answer(416, {"Content-Range": f"bytes */{size}"})
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        headers |= {"Accept-Ranges": "bytes", "Content-Length": str(end - begin)}
        if self.fault("nolength"):
            del headers["Content-Length"]
            self.close_connection = True
        self.answer(status, headers, body=False)
        if self.command == "HEAD":
            return
        fault = self.fault("drop", "reset", "stall", "slow", "corrupt") or Fault("none")
        breaks = fault.kind in ("drop", "reset", "stall")
        stop = min(end, begin + fault.n) if breaks else end
        plain = isinstance(file.content, Path) and (breaks or fault.kind == "none")
        with contextlib.suppress(OSError):  # the client went away, or was told to
            if plain and stop <= file.size:
                self.wfile.flush()
                with file.content.open("rb") as source:
                    if stop > begin:
                        self.seen.sent += self.connection.sendfile(source, begin, stop - begin)
            else:
                self.trickle(file, begin, stop, fault)
            if stop < end:
                self.give_up(fault.kind)

    def trickle(self, file: File, begin: int, stop: int, fault: Fault) -> None:
        step = max(1, fault.n // 50) if fault.kind == "slow" else MIB
        position = begin
        beyond = bytes(max(0, stop - file.size))
        for part in itertools.chain(file.parts(begin, min(stop, file.size), step), [beyond]):
            for at in range(0, len(part), step):
                data = bytearray(part[at : at + step])
                if fault.kind == "corrupt" and 0 <= fault.n - position < len(data):
                    data[fault.n - position] ^= 1
                if fault.kind == "slow" and self.hub.closing.wait(0.02):
                    return
                self.wfile.write(data)
                self.wfile.flush()
                position += len(data)
                self.seen.sent += len(data)

    def give_up(self, how: str) -> None:
        self.wfile.flush()
        if how == "stall":
            self.hub.closing.wait(60)
        if how == "reset":
            time.sleep(0.05)  # a reset overtakes bytes that the client has not read
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True

    def json(self, value: Any, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.answer(200, {"Content-Type": "application/json", **(headers or {})}, data)

    def refuse(self, status: int, code: str = "", message: str = "", **headers: str) -> None:
        named = {"X-Error-Code": code, "X-Error-Message": message, **headers}
        sent = {name: value for name, value in named.items() if value}
        self.answer(status, sent, json.dumps({"error": message}).encode())

    def answer(
        self, status: int, headers: Mapping[str, str], data: bytes = b"", body: bool = True
    ) -> None:
        self.seen.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if body:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="holds repositories as owner/name/...")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fault", action="append", default=[], metavar="KIND=N@WHERE*TIMES")
    options = parser.parse_args()
    with Hub(options.port) as hub:
        for folder in sorted(p for p in options.folder.glob("*/*") if p.is_dir()):
            files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
            hub.add(folder.relative_to(options.folder).as_posix(), files)
        for text in options.fault:
            found = re.fullmatch(r"(\w+)(?:=(\d+))?(?:@(\w+))?(?:\*(\d+))?", text)
            assert found, f"{text} is no fault"
            kind, n, where, times = found.groups()
            hub.fault(kind, int(n or 0), where=where or "cdn", times=int(times or -1))
        print(hub.url, *(repo.commit for repo in hub.repos.values()), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
