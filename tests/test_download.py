"""Downloads: whatever breaks, the bytes are correct, and no byte is sent twice
without need."""

import dataclasses
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hub import TOKEN, Hub, pattern
from hypothesis import given, settings
from hypothesis import strategies as st

from lcp import formatting
from lcp.downloads import download as module
from lcp.downloads.download import download
from lcp.downloads.hub_cache import CacheEntry
from lcp.errors import DownloadError

pytestmark = pytest.mark.slow  # processes, servers and time-outs

SIZE = 3_000_000
NAME = "model.Q4_K_M.gguf"
SMALL = "docs/read/me.md"
# One pull, in a process of its own; notices on stderr.
CHILD = """
import json, sys
from pathlib import Path
from lcp.downloads.download import download
from lcp.downloads.hub_cache import CacheEntry
fields = json.loads(sys.argv[1])
fields["folder"] = Path(fields["folder"])
tell = lambda sentence: print(sentence, file=sys.stderr, flush=True)
print(download(CacheEntry(**fields), on_notice=tell, stall=5, pause=0.01))
"""


@pytest.fixture
def hub():
    with Hub() as hub:
        yield hub


@pytest.fixture
def repo(hub, tmp_path):
    content = pattern(tmp_path / "content", SIZE).read_bytes()
    return hub.add("owner/name", {NAME: content, SMALL: b"Read me.\n", "empty": b""})


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "hub"


@pytest.fixture
def blob(hub, repo, cache):
    return blob_of(hub, repo, NAME, cache)


def blob_of(hub, repo, path, cache):
    file = repo.files[path]
    folder = cache / f"models--{repo.name.replace('/', '--')}"
    return CacheEntry(hub.url_of(repo, path), file.etag, file.size, repo.commit, path, folder)


@dataclass
class Pull:
    """A download and its messages."""

    path: Path | None = None
    error: DownloadError | None = None
    notices: list[str] = field(default_factory=list)
    progress: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def said(self):
        return "\n".join(self.notices)


def pull(blob, stall=10.0, **options):
    done = Pull()
    try:
        done.path = download(
            blob, stall=stall, pause=0.002, on_notice=done.notices.append,
            on_progress=lambda *step: done.progress.append(step), **options,
        )  # fmt: skip
    except DownloadError as error:
        done.error = error
    return done


def ranges(hub, where="cdn"):
    return [r.range for r in hub.log if r.where == where]


def content_of(hub, blob):
    return b"".join(hub.repos["owner/name"].files[blob.path].parts(0, blob.size))


def assert_kept(hub, blob, path):
    """Assert that the correct file is in the cache under its name, and nothing else."""
    assert path == blob.pointer
    assert path.read_bytes() == content_of(hub, blob)
    assert path.is_symlink() and path.resolve() == blob.blob
    assert not Path(path.readlink()).is_absolute()
    assert [p.name for p in blob.blob.parent.iterdir()] == [blob.etag]
    assert (blob.folder / "refs" / "main").read_text() == blob.commit


# faults: what broke, the requested ranges, the messages


M = 1_000_000
FROM = "bytes={}-".format
SURVIVED = {
    "nothing": ([], [None], ""),
    "drop": ([("drop", M, 1)], [None, FROM(M)], r"closed it before the end\. Trying again in 0 s"),
    "drop each time": ([("drop", M)], [None, FROM(M), FROM(2 * M)], "closed it before the end"),
    "drop at once": ([("drop", 0, 3)], [None] * 4, "closed it before the end"),
    "stall": ([("stall", M, 1)], [None, FROM(M)], "no answer for 1 s"),
    "stall before a byte": ([("stall", 0, 1)], [None] * 2, "no answer for 1 s"),
    "slow": ([("slow", 20 * M)], [None], ""),
    "corrupt": ([("corrupt", M, 1)], [None, None], "arrived damaged"),
    "short": ([("short", 100, 1)], [None, None], "2999900 bytes instead of 3000000"),
    "long": ([("long", 100, 1)], [None, None], "3000100 bytes instead of 3000000"),
    "no length": ([("nolength", 0)], [None], ""),
    "no length, and longer": ([("nolength", 0), ("long", 100)], [None], ""),
    "no length, and cut": (
        [("nolength", 0, 1), ("drop", M, 1)], [None, FROM(M)], "too few bytes",
    ),
    "no ranges": (
        [("drop", M, 1), ("norange", 0)], [None, FROM(M)], "cannot be resumed from this server",
    ),
    "another etag": ([("drop", M, 1), ("etag", 0)], [None, FROM(M)], "has changed"),
    "another etag, and If-Range ignored": (
        [("drop", M, 1), ("etag", 0), ("noifrange", 0)], [None, FROM(M), None], "has changed"
    ),
    "no headers": ([("drop", M, 1), ("noheader", 0)], [None, FROM(M)], "closed it before the end"),
    **{str(n): ([("status", n, 1)], [None] * 2, f": {n} ") for n in (401, 403, 404, 410)},
    **{str(n): ([("status", n, 2)], [None] * 3, f": {n} ") for n in (408, 429, 500, 502, 503, 504)},
}  # fmt: skip


@pytest.mark.parametrize("name", SURVIVED)
def test_a_download_survives_network_faults(hub, blob, name):
    faults, asked, said = SURVIVED[name]
    for kind, n, *times in faults:
        hub.fault(kind, n, times=times[0] if times else -1)
    done = pull(blob, token=TOKEN, stall=1.0 if "stall" in name else 10)
    assert_kept(hub, blob, done.path)
    assert ranges(hub) == asked
    assert re.search(said, done.said) and bool(said) == bool(done.notices)
    # Each try starts at the Hub, which signs a new address; the token is sent only there.
    assert [r.token for r in hub.log if r.where == "resolve"] == [TOKEN] * len(asked)
    assert [r.token for r in hub.log if r.where == "cdn"] == [None] * len(asked)
    assert done.progress[-1] == ("downloading", SIZE, SIZE)


def test_a_reset_keeps_the_bytes_read(hub, blob):
    hub.fault("reset", M, times=1)
    done = pull(blob)
    assert_kept(hub, blob, done.path)
    first, second = ranges(hub)
    assert first is None and 0 < int(second[6:-1]) <= M


def test_a_new_byte_resets_the_number_of_tries(hub, blob):
    hub.fault("drop", 50_000)
    done = pull(blob)
    assert_kept(hub, blob, done.path)
    assert ranges(hub) == [None, *(FROM(n) for n in range(50_000, SIZE, 50_000))]


@pytest.mark.parametrize(
    ("kind", "n", "says"),
    [
        ("drop", 0, r"closed it before the end\. Check the network"),
        ("status", 503, r"503 .*Try again later\.$"),
        ("status", 403, "403"),
        ("short", 100, "2999900 bytes instead of 3000000"),
        ("long", 100, "3000100 bytes instead of 3000000"),
    ],
)
def test_a_permanent_failure_ends_the_download(hub, blob, kind, n, says):
    hub.fault(kind, n)
    done = pull(blob)
    assert re.search(says, str(done.error))
    assert len(ranges(hub)) == module.TRIES
    assert list(blob.blob.parent.iterdir()) == []


def test_a_file_that_always_changes_ends_the_download(hub, blob):
    hub.fault("etag")
    hub.fault("drop", M)
    assert pull(blob).error
    assert len(ranges(hub)) <= 2 * module.TRIES


def test_a_file_that_always_arrives_damaged_is_an_error_with_both_hashes(hub, blob):
    hub.fault("corrupt", M)
    done = pull(blob)
    wrong = bytearray(content_of(hub, blob))
    wrong[M] ^= 1
    for fact in (NAME, "damaged twice", hashlib.sha256(wrong).hexdigest(), blob.etag):
        assert fact in str(done.error)
    assert ranges(hub) == [None, None]
    assert list(blob.blob.parent.iterdir()) == []
    assert not blob.pointer.exists()


BROKEN = st.tuples(
    st.sampled_from([
        "drop", "reset", "corrupt", "short", "long", "norange", "noifrange", "nolength", "etag",
        "noheader", "html", "status",
    ]),
    st.integers(0, 250_000),
    st.integers(1, 4),
    st.sampled_from(["cdn", "resolve"]),
)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(faults=st.lists(BROKEN, max_size=6), here=st.integers(0, 250_000))
def test_only_verified_files_get_their_name(tmp_path_factory, faults, here):
    cache = tmp_path_factory.mktemp("cache") / "hub"
    with Hub() as hub:
        content = random.Random(here).randbytes(200_000)
        blob = blob_of(hub, hub.add("owner/name", {NAME: content}), NAME, cache)
        leave(blob, content[:here])
        for kind, n, times, where in faults:
            status = (401, 403, 404, 416, 429, 500, 503)[n % 7]
            hub.fault(kind, status if kind == "status" else n, where=where, times=times)
        done = pull(blob, token=TOKEN)
        assert all(r.token is None for r in hub.log if r.where == "cdn")
        if done.error:
            assert not blob.blob.exists() and not blob.pointer.exists()
            hub.faults.clear()
            done = pull(blob)
        assert_kept(hub, blob, done.path)


def test_lcp_waits_as_long_as_a_server_asks(hub, blob):
    hub.fault("status", 429, times=1, retry_after="1")
    begun = time.monotonic()
    done = pull(blob)
    assert time.monotonic() - begun >= 1
    assert_kept(hub, blob, done.path)
    assert "429 Broken on purpose. Trying again in 1 s." in done.said


@pytest.mark.parametrize("where", ["resolve", "cdn"])
def test_a_very_long_wait_is_refused(hub, blob, where):
    hub.fault("status", 429, where=where, retry_after="3600")
    done = pull(blob)
    assert str(done.error).endswith("run the same command again.")
    assert len(ranges(hub, where)) == 1


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("hf_nogrant", 403), ("bad", 401)])
def test_a_gated_model_is_refused_once(hub, repo, blob, token, status):
    repo.gated = True
    done = pull(blob, token=token)
    assert done.error.status == status
    assert len(hub.log) == 1 and not done.notices


def test_a_login_page_of_the_network_keeps_the_part(hub, blob):
    leave(blob, content_of(hub, blob)[:M])
    hub.fault("html", where="resolve")
    done = pull(blob)
    assert "web page" in str(done.error) and "log in" in str(done.error)
    assert done.notices == ["Kept 1.00 MB of 3.00 MB: the same command resumes there."]
    assert blob.part.read_bytes() == content_of(hub, blob)[:M]


def test_offline_mode_sends_no_request(hub, blob, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in str(pull(blob).error)
    assert not hub.log


# files of an earlier run


def leave(blob, data):
    blob.part.parent.mkdir(parents=True, exist_ok=True)
    blob.part.write_bytes(data)


def test_the_next_run_resumes_and_checks_the_part(hub, blob):
    leave(blob, content_of(hub, blob)[:1_234_567])
    done = pull(blob)
    assert_kept(hub, blob, done.path)
    assert ranges(hub) == [FROM(1_234_567)]
    stages = [doing for doing, _, _ in done.progress]
    assert stages == sorted(stages) and set(stages) == {"checking", "downloading"}
    counts = [n for _, n, _ in done.progress]
    assert counts == sorted(counts) and counts[-1] == SIZE


def test_a_complete_part_needs_no_server(hub, blob):
    leave(blob, content_of(hub, blob))
    assert_kept(hub, blob, pull(blob).path)
    assert not hub.log


@pytest.mark.parametrize("size", [M, SIZE, SIZE + 1])
def test_a_part_of_another_file_is_discarded(hub, blob, size):
    leave(blob, bytes(size))
    assert_kept(hub, blob, pull(blob).path)
    assert ranges(hub) == ([FROM(M), None] if size == M else [None])


def test_a_range_after_the_end_restarts_the_download(hub, blob):
    leave(blob, content_of(hub, blob)[:M])
    hub.fault("short", SIZE - 500_000, times=1)
    assert_kept(hub, blob, pull(blob).path)
    assert ranges(hub) == [FROM(M), None]


def test_ctrl_c_keeps_the_part(hub, blob):
    notices = []

    def stop(doing, done, total):
        if done >= M:
            raise KeyboardInterrupt

    hub.fault("slow", 20 * M)
    with pytest.raises(KeyboardInterrupt):
        download(blob, on_progress=stop, on_notice=notices.append)
    size = blob.part.stat().st_size
    assert size >= M and blob.part.read_bytes() == content_of(hub, blob)[:size]
    assert notices == [f"Kept {formatting.size(size)} of 3.00 MB: the same command resumes there."]
    hub.log.clear()
    assert_kept(hub, blob, pull(blob).path)
    assert ranges(hub) == [FROM(size)]


def test_a_file_that_is_here_is_not_requested(hub, repo, blob, cache):
    pull(blob)
    hub.log.clear()
    assert pull(blob).path == blob.pointer
    # A later commit with the same file: a name more, no byte.
    newer = hub.add("owner/name", {NAME: content_of(hub, blob), "x": b"x"})
    again = blob_of(hub, newer, NAME, cache)
    assert_kept(hub, again, pull(again).path)
    assert again.commit != blob.commit and blob.pointer.exists()
    assert not hub.log


def test_a_truncated_file_in_the_cache_is_downloaded_again(hub, blob):
    pull(blob)
    os.truncate(blob.blob, 1000)
    assert_kept(hub, blob, pull(blob).path)


# small files, odd names, the folder


@pytest.mark.parametrize("path", [SMALL, "empty"])
def test_a_small_file_is_verified_as_git_does(hub, repo, cache, path):
    blob = blob_of(hub, repo, path, cache)
    assert len(blob.etag) == 40
    assert_kept(hub, blob, pull(blob).path)
    leave(dataclasses.replace(blob, etag="0" * 40), b"")
    assert "arrived damaged twice" in str(
        pull(dataclasses.replace(blob, etag="0" * 40, path="y")).error
    )


@pytest.mark.parametrize(
    "wrong",
    [
        *({"path": p} for p in ("../x", "/x", "a/../../x", "a//b", "", ".", "C:/x")),
        *({"path": p} for p in ("a\\b", "a\nb", "a\0")),
        *({"etag": e} for e in ("", "../../x", "0" * 39, "g" * 64, "0" * 64 + "\n")),
        {"commit": "main"}, {"commit": ".."}, {"revision": "../../x"}, {"revision": ""},
    ],
    ids=str,
)  # fmt: skip
def test_no_file_name_leads_out_of_the_folder(blob, wrong):
    with pytest.raises(DownloadError, match="unsafe file name"):
        dataclasses.replace(blob, **wrong)


def test_a_requested_commit_writes_no_ref(hub, blob):
    pull(dataclasses.replace(blob, revision=blob.commit))
    assert not (blob.folder / "refs").exists()
    pull(dataclasses.replace(blob, revision="refs/pr/1"))
    assert (blob.folder / "refs/refs/pr/1").read_text() == blob.commit


def test_without_symbolic_links_the_file_is_in_the_snapshot(hub, blob, monkeypatch):
    monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
    path = pull(blob).path
    assert path == blob.pointer and not path.is_symlink()
    assert path.read_bytes() == content_of(hub, blob)
    assert list(blob.blob.parent.iterdir()) == []
    hub.log.clear()
    assert pull(blob).path == path and not hub.log


def test_a_disk_that_is_too_small_is_noticed_before_the_first_byte(hub, blob):
    done = pull(dataclasses.replace(blob, size=10**18))
    assert str(done.error).startswith(f"{NAME} needs 1000000000 GB, and {blob.folder} has ")
    assert not hub.log


def test_a_full_disk_keeps_the_part(hub, blob):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, -1))\n"
    done = child(blob, code=limit + CHILD)
    assert done.returncode == 1
    assert "Kept 1.00 MB of 3.00 MB" in done.stderr
    assert re.search(
        rf"DownloadError: The disk is full \(File too large\): {NAME} needs 2\.00 MB more\. "
        rf"Free some space in {blob.folder}, then run the same command again\.$",
        done.stderr.strip(),
    )
    assert blob.part.read_bytes() == content_of(hub, blob)[:M]
    assert_kept(hub, blob, pull(blob).path)
    assert ranges(hub)[-1] == FROM(M)


def test_a_folder_that_cannot_be_written(hub, blob):
    blob.folder.parent.mkdir(parents=True)
    blob.folder.write_text("a file")
    assert re.search("Cannot write .* Set HF_HOME to", str(pull(blob).error))


# other processes


def arguments(blob, code=CHILD):
    fields = dataclasses.asdict(blob) | {"folder": str(blob.folder)}
    return [sys.executable, "-c", code, json.dumps(fields)]


def child(blob, code=CHILD):
    return subprocess.run(arguments(blob, code), text=True, capture_output=True)


def test_two_processes_download_a_file_once(hub, blob):
    hub.fault("slow", 3 * M)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(arguments(blob), **pipes) for _ in range(2)]
    said = [process.communicate() for process in both]
    assert [out.strip() for out, _ in said] == [str(blob.pointer)] * 2
    assert sorted(err for _, err in said) == ["", f"Another lcp is downloading {NAME}: waiting.\n"]
    assert len(ranges(hub)) == 1
    assert_kept(hub, blob, blob.pointer)


@pytest.mark.slow
def test_after_fifty_kills_the_file_is_correct(hub, tmp_path, cache):
    content = pattern(tmp_path / "big.gguf", 200 << 20, seed=1)
    repo = hub.add("owner/big", {"big.gguf": content})
    blob = blob_of(hub, repo, "big.gguf", cache)
    hub.fault("slow", 8 * M)
    dice = random.Random(1)
    here, resumed = 0, 0
    for kill in range(50):
        hub.log.clear()
        process = subprocess.Popen(arguments(blob), stderr=subprocess.DEVNULL)
        while kill % 5 and not ranges(hub):  # every fifth is killed while it starts or checks
            time.sleep(0.005)
        time.sleep(dice.uniform(0, 0.5))
        assert process.poll() is None, "a kill came too late"
        process.send_signal(signal.SIGKILL)
        process.wait()
        for asked in ranges(hub):
            begin = int(asked[6:-1]) if asked else 0
            assert here - (4 << 20) <= begin <= here
            resumed += begin > 0
        here = blob.part.stat().st_size if blob.part.exists() else 0
    assert resumed >= 39 and here > 10 * M
    hub.faults.clear()
    hub.log.clear()
    done = child(blob)
    assert done.stdout.strip() == str(blob.pointer), done.stderr
    assert ranges(hub) == [FROM(here)]
    with blob.pointer.open("rb") as file:
        digest = hashlib.sha256()
        while part := file.read(1 << 20):
            digest.update(part)
    assert digest.hexdigest() == blob.etag == repo.files["big.gguf"].etag


# huggingface_hub with our cache

CLIENT = """
import json, logging, sys, warnings
from huggingface_hub import HfApi, hf_hub_download, scan_cache_dir
warnings.simplefilter("error")
name, files, ours, theirs = json.loads(sys.argv[1])
offline = [hf_hub_download(name, f, cache_dir=ours, local_files_only=True) for f in files]
for file in files:
    hf_hub_download(name, file, cache_dir=theirs)
scans = [scan_cache_dir(folder) for folder in (ours, theirs)]
verified = HfApi().verify_repo_checksums(name, cache_dir=ours)
files_of = lambda s: sorted(f.file_name for r in s.repos for v in r.revisions for f in v.files)
print(json.dumps({
    "offline": offline,
    "warnings": [str(w) for w in scans[0].warnings],
    "sizes": [scan.size_on_disk for scan in scans],
    "files": [files_of(scan) for scan in scans],
    "refs": [sorted(r for repo in s.repos for r in repo.refs) for s in scans],
    "checked": verified.checked_count,
    "wrong": [verified.mismatches, verified.missing_paths, verified.extra_paths],
}))
"""


def hub_client(hub, *command):
    env = os.environ | {
        "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }  # fmt: skip
    done = subprocess.run([sys.executable, *command], env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tree(folder):
    """The files and links of a cache, without a client's own records."""
    found = {p.relative_to(folder): p for p in sorted(folder.rglob("*"))}
    return {
        str(name): str(p.readlink()) if p.is_symlink() else p.is_file() and p.read_bytes()
        for name, p in found.items()
        if name.name != "CACHEDIR.TAG"
    }


@pytest.mark.slow
def test_huggingface_hub_finds_our_downloads(hub, repo, cache, tmp_path):
    files = [NAME, SMALL, "empty"]
    paths = [str(pull(blob_of(hub, repo, path, cache)).path) for path in files]
    hub.log.clear()
    theirs = tmp_path / "theirs"
    given = json.dumps(["owner/name", files, str(cache), str(theirs)])
    found = json.loads(hub_client(hub, "-c", CLIENT, given))
    assert found["offline"] == paths
    assert found["warnings"] == []
    assert found["sizes"][0] == found["sizes"][1] == SIZE + 9
    assert found["files"][0] == found["files"][1] and found["refs"] == [["main"]] * 2
    assert found["checked"] == 3 and found["wrong"] == [[], [], []]
    assert len(ranges(hub)) == 1  # their own download
    assert tree(cache) == tree(theirs)
    hub_client(hub, "-m", "huggingface_hub.cli.hf", "cache", "verify", "owner/name",
               "--cache-dir", str(cache))  # fmt: skip


@pytest.mark.slow
def test_our_part_files_do_not_disturb_huggingface_hub(hub, cache, blob):
    leave(blob, content_of(hub, blob)[:M])
    hub.fault("status", 401, where="resolve", times=1)
    assert pull(blob).error
    code = "import sys, huggingface_hub as h; print(h.scan_cache_dir(sys.argv[1]).warnings)"
    assert hub_client(hub, "-c", code, str(cache)).strip() == "[]"
    # It downloads the file itself; then it is here for us, too.
    code = (
        "import sys, huggingface_hub as h; h.hf_hub_download(*sys.argv[1:3], cache_dir=sys.argv[3])"
    )
    hub_client(hub, "-c", code, "owner/name", NAME, str(cache))
    hub.log.clear()
    assert_kept(hub, blob, pull(blob).path)
    assert not hub.log
