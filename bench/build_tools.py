"""llama.cpp's own llama-bench and llama-cli, made to match the installed llama_cpp package.

    python -m bench.build_tools [llama-bench llama-cli]

The sources come from the llama-cpp-python source archive of the installed version; the programs are
linked against the shared libraries of the installed package (see CMakeLists.txt), so a bench
compares two programs around the very same kernels. Everything lands in bench/.build/VERSION/; what
stands there already is not made again. Prints one path a line; progress goes to stderr.

Knows nothing of what is measured.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE / ".build"
TOOLS = ("llama-bench", "llama-cli")
JOBS = 2


class BuildError(Exception):
    """One sentence on why there is no tool; it ends with what to do."""


def tool(name: str) -> Path:
    """The path of `name`, built first if need be: llama-bench in seconds, llama-cli in minutes."""
    release, libraries = installed()
    folder = BUILD / release
    program, linked = folder / "bin" / name, folder / f"{name}.libs"
    wanted = ";".join(map(str, libraries))
    if program.exists() and linked.exists() and linked.read_text() == wanted:
        return program
    if shutil.which("cmake") is None:
        raise BuildError("cmake is missing: install cmake and a C++ compiler, then run this again.")
    sources = unpack(release)
    run("cmake", "-S", HERE, "-B", folder, f"-DSOURCES={sources}", f"-DLIBS={wanted}")
    run("cmake", "--build", folder, "--target", name, "--parallel", JOBS)
    linked.write_text(wanted)
    return program


def installed() -> tuple[str, list[Path]]:
    """The version of llama-cpp-python and the folders of its libraries, the imported one first."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise BuildError("llama_cpp is not installed here: pip install llama-cpp-python.")
    package = Path(spec.origin).parent
    try:
        return version("llama-cpp-python"), [package / "lib", package.parent / "lib"]
    except PackageNotFoundError:
        raise BuildError("llama_cpp has no version here: install it with pip.") from None


def unpack(release: str) -> Path:
    """The llama.cpp folder of that version's source archive, downloaded with pip if not there."""
    name = f"llama_cpp_python-{release}"
    archive, sources = BUILD / f"{name}.tar.gz", BUILD / name / "vendor" / "llama.cpp"
    if not archive.exists():
        pip = ["-m", "pip", "download", "--no-deps", "--no-binary", "llama-cpp-python"]
        run(sys.executable, *pip, f"llama-cpp-python=={release}", "--dest", BUILD)
    if not sources.exists():
        with tarfile.open(archive) as tar:
            tar.extractall(BUILD, filter="data")
    return sources


def run(*command: object) -> None:
    """Run with all output on stderr; a failure becomes one sentence."""
    words = [str(word) for word in command]
    if subprocess.run(words, stdout=sys.stderr).returncode:
        raise BuildError(
            f"'{' '.join(words[:4])} ...' failed: its own words stand above; "
            f"if they do not help, delete {BUILD} and run this again."
        )


def main(names: list[str]) -> int:
    try:
        for name in names or TOOLS:
            print(tool(name), flush=True)
    except BuildError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
