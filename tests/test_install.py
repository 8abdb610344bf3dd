"""The installation of llama.cpp: what is compiled, with which flags, and its output."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

INSTALL = Path(__file__).parents[1] / "install"
NINJA = ["[1/4] c++ -c a.cpp", "warning: unused", "[2/4] c++ -c b.cpp", "[4/4] Linking x"]
MAKE = ["[  0%] Building CXX object a.o", "cd /tmp/x", "[ 50%] Building C object b.o", "[100%] z"]


@pytest.fixture(scope="module")
def llama():
    spec = importlib.util.spec_from_file_location("llama", INSTALL / "llama.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("lines", "shares"), [(NINJA, [0.25, None, 0.5, 1]), (MAKE, [0, None, 0.5, 1])]
)
def test_the_progress_of_both_build_tools_is_parsed(llama, lines, shares):
    assert [llama.share(line) for line in lines] == shares


@pytest.mark.parametrize("screen", [True, False])
def test_the_progress_is_one_line_on_a_screen_and_rare_elsewhere(llama, capsys, screen):
    llama.show(NINJA, screen)
    out = capsys.readouterr().out
    assert out.count("\n") == (0 if screen else 1)
    assert ("Compiling llama.cpp:  50%" in out) is screen


def test_the_persons_compiler_flags_are_kept(llama):
    own = {"CMAKE_ARGS": "-DGGML_CUDA=on", "SKBUILD_CMAKE_DEFINE": "A=1", "HOME": "/h"}
    made = llama.build_environment(own)
    assert made["CMAKE_ARGS"] == "-DGGML_CUDA=on"
    assert made["SKBUILD_CMAKE_DEFINE"].startswith("A=1;CMAKE_PROJECT_INCLUDE=")
    assert made["HOME"] == "/h"


def test_pip_does_not_reuse_a_package_compiled_with_other_flags(llama, tmp_path):
    home = {"XDG_CACHE_HOME": str(tmp_path)}
    plain, cuda = llama.cache(home), llama.cache(home | {"CMAKE_ARGS": "-DGGML_CUDA=on"})
    assert plain != cuda
    assert {plain.parent, cuda.parent} == {tmp_path / "lcp" / "pip"}
    assert llama.cache(home | {"LANG": "C"}) == plain


def test_unused_parts_of_llama_cpp_are_not_built(llama, tmp_path):
    """As llama-cpp-python does: one option, and a variable that it forces into CMake's cache."""
    project = tmp_path / "a b"
    project.mkdir()
    parts = shutil.copy(llama.PARTS, project / "llama.cmake")
    (project / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.21)\nproject(outer LANGUAGES NONE)\n"
        'option(LLAVA_BUILD "" ON)\nset(LLAMA_BUILD_COMMON ON CACHE BOOL "" FORCE)\n'
        "add_subdirectory(inner)\n"
    )
    (project / "inner").mkdir()
    (project / "inner/CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.14...3.28)\nproject(inner LANGUAGES NONE)\n"
        'option(LLAMA_BUILD_COMMON "" ON)\nmessage("${LLAVA_BUILD} ${LLAMA_BUILD_COMMON}")\n'
    )
    cmake = shutil.which("cmake", path=Path(sys.executable).parent)
    words = [cmake, f"-DCMAKE_PROJECT_INCLUDE={parts}", "-S", project, "-B", tmp_path / "build"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "OFF OFF" in done.stderr


def test_the_output_of_pip_is_shown_if_it_fails(llama, tmp_path, capsys):
    fake = tmp_path / "pip.py"
    fake.write_text("import sys; print('[1/2] x'); print('no compiler'); sys.exit(3)")
    env = {"XDG_CACHE_HOME": str(tmp_path), "CMAKE_ARGS": "-DX=1"}

    def install():
        return llama.install("llama-cpp-python", env, tmp_path, [sys.executable, str(fake)])

    log = tmp_path / "llama.log"
    assert install() == 3
    out = capsys.readouterr().out
    assert "no compiler" in out and str(log) in out
    fake.write_text("import sys; print(*sys.argv)")
    assert install() == 0
    assert "--force-reinstall" in log.read_text()
    assert install() == 0  # the same flags again
    assert "--force-reinstall" not in log.read_text()
