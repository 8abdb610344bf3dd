"""Installs llama-cpp-python without the parts that lcp never calls, and shows how far it is.

    .venv/bin/python install/llama.py      # into the environment of that Python

pip compiles llama.cpp, and takes no notice of how: it keeps one compiled package for all
CMAKE_ARGS. So this script

- gives pip a cache of its own for each set of flags. Other projects never get a package without
  the multimodal library, and a second clone of lcp compiles nothing;
- takes a package that pip has already compiled, if you give no flags: it has all that lcp needs;
- compiles again if you give other flags than last time (CMAKE_ARGS="-DGGML_CUDA=on" make chat).

Runs before lcp is installed: standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
PARTS = HERE / "llama.cmake"
PIP = [sys.executable, "-m", "pip"]
# What changes the build; scikit-build-core, which drives CMake, reads the SKBUILD_ names.
OURS = re.compile(r"(CMAKE_|SKBUILD_).*|CC|CXX|CFLAGS|CXXFLAGS|LDFLAGS")
STEP = re.compile(r"\s*\[\s*(\d+)(?:/(\d+)\]|%\])")  # ninja's [12/74], make's [ 16%]


def flags(env: Mapping[str, str]) -> dict[str, str]:
    """The person's own variables that change the build."""
    return {name: value for name, value in sorted(env.items()) if OURS.fullmatch(name) and value}


def build_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a lean build. CMAKE_ARGS is left to the person; a path in
    SKBUILD_CMAKE_DEFINE may have blanks."""
    defines = [env.get("SKBUILD_CMAKE_DEFINE", ""), f"CMAKE_PROJECT_INCLUDE={PARTS.as_posix()}"]
    jobs = {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1)}
    return jobs | dict(env) | {"SKBUILD_CMAKE_DEFINE": ";".join(filter(None, defines))}


def cache(env: Mapping[str, str]) -> Path:
    """The folder in which pip keeps the package that was compiled with these flags."""
    key = hashlib.sha256(f"{flags(env)}{PARTS.read_text()}".encode()).hexdigest()[:16]
    return Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lcp" / "pip" / key


def share(line: str) -> float | None:
    """How much is compiled, 0 to 1, if the line of a build tool says so."""
    if not (step := STEP.match(line)):
        return None
    return int(step[1]) / int(step[2] or 100)


def show(lines: Iterable[str], screen: bool) -> None:
    """Draw the progress of a build: on a screen one line, elsewhere a line every 30 seconds."""
    begun = told = 0.0
    for line in lines:
        if (done := share(line)) is None:
            continue
        now = time.monotonic()
        begun = begun or now
        left = (now - begun) * (1 - done) / done if done > 0.05 else 0.0
        text = f"Compiling llama.cpp: {done:4.0%}{f', {duration(left)} left' if left else ''}"
        if screen:
            print(f"\r{text}\x1b[K", end="", flush=True)
        elif now - told > 30:
            told = now
            print(text, flush=True)
    if screen:
        print("\r\x1b[K", end="", flush=True)


def duration(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min" if seconds > 90 else f"about {seconds:.0f} s"


def compiled_before() -> list[str]:
    """pip's options to find the packages that it has compiled before."""
    listed = [*PIP, "cache", "list", "--format=abspath", "llama_cpp_python"]
    found = subprocess.run(listed, capture_output=True, text=True).stdout.splitlines()
    return [f"--find-links={Path(file).parent}" for file in found if file.endswith(".whl")]


def install(
    requirement: str,
    env: Mapping[str, str],
    folder: Path = Path(sys.prefix),
    pip: Sequence[str] = PIP,
) -> int:
    """Install the package, compiled if need be; the exit code of pip. What pip says is kept in
    `folder`, and so is the key of the flags that the package was built with."""
    begun, stored = time.monotonic(), cache(env)
    said, built_with = folder / "llama.log", folder / "llama.flags"
    options = ["--verbose", "--no-deps", f"--cache-dir={stored}"]
    if not flags(env):
        options += compiled_before()
    elif not built_with.exists() or built_with.read_text() != stored.name:
        options.append("--force-reinstall")
    process = subprocess.Popen(
        [*pip, "install", *options, requirement], env=build_environment(env), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace",
    )  # fmt: skip
    with said.open("w", encoding="utf-8") as log, process:
        assert process.stdout
        show((line for line in process.stdout if log.write(line)), sys.stdout.isatty())
    if process.returncode:
        last = said.read_text("utf-8").splitlines()[-30:]
        print(*last, f"\nllama.cpp was not installed. Everything pip said: {said}", sep="\n")
        return process.returncode
    if flags(env):
        built_with.write_text(stored.name)
    print(f"llama.cpp is installed ({time.monotonic() - begun:.0f} s).", flush=True)
    return 0


def main() -> int:
    project = (HERE.parent / "pyproject.toml").read_text("utf-8")
    requirement = re.search(r'"(llama-cpp-python[^"]*)"', project)
    assert requirement
    print("Installing llama.cpp. If it must be compiled, that takes 2 to 5 minutes.", flush=True)
    try:
        return install(requirement[1], os.environ)
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to continue.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
