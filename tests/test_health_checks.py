"""The findings of the doctor, on fake computers in folders; and the command on this one."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from test_cli import COMMAND, terminal_environment

from lcp import health_checks, paths
from lcp.downloads.library import OWN, installed, places
from lcp.downloads.model_folders import LM_STUDIO
from lcp.machine import Gpu

BUILT = "CPU : SSE3 = 1 | AVX2 = 1 | FMA = 1 | F16C = 1 | AVX512 = 0 | REPACK = 1 |"
CPUINFO = """\
processor\t: 0
model name\t: Some CPU @ 3 GHz
flags\t\t: fpu {}
processor\t: 1
model name\t: Some CPU @ 3 GHz
flags\t\t: fpu {}
"""


def cpu(flags):
    return health_checks.cpu(health_checks.features(BUILT), CPUINFO.format(flags, flags))


def test_a_build_that_uses_all_cpu_features_is_fine():
    found = cpu("avx2 fma f16c")
    assert found.value == "Some CPU @ 3 GHz (AVX2 FMA F16C)"
    assert (found.wrong, found.advice, found.mend) == ("", "", "")


def test_unused_cpu_features_are_advice_with_a_command():
    found = cpu("avx2 fma f16c avx512f amx_int8")
    assert "AVX512, AMX_INT8" in found.advice
    assert "GGML_NATIVE=ON" in found.mend
    assert found.wrong == ""


def pci(root, *devices):
    for n, (kind, vendor) in enumerate(devices):
        folder = root / f"sys/bus/pci/devices/0000:00:0{n}.0"
        folder.mkdir(parents=True)
        (folder / "class").write_text(f"{kind}\n")
        (folder / "vendor").write_text(f"{vendor}\n")
    return health_checks.cards(root)


def test_graphics_cards_are_display_controllers(tmp_path):
    assert pci(tmp_path, ("0x020000", "0x10de"), ("0x030200", "0x10de")) == ["0x10de"]


@pytest.mark.parametrize(
    ("vendor", "cuda", "told", "mend"),
    [
        ("0x10de", (12, 4), "NVIDIA, not used", "/whl/cu124"),
        ("0x10de", (13, 0), "NVIDIA, not used", "/whl/cu125"),
        ("0x10de", (11, 8), "NVIDIA, not used", "DGGML_CUDA=ON"),
        ("0x10de", None, "NVIDIA, not used", "DGGML_CUDA=ON"),
        ("0x1002", None, "AMD, not used", "DGGML_HIP=ON"),
    ],
)
def test_an_unused_graphics_card_is_a_finding_with_its_command(vendor, cuda, told, mend):
    found = health_checks.gpu((), ["0x8086", vendor], cuda)
    assert (found.value, bool(found.wrong)) == (told, True)
    assert mend in found.mend


def test_a_used_graphics_card_is_fine():
    used = (Gpu("CUDA0", 8 << 30, 24 << 30, description="A card"),)
    found = health_checks.gpu(used, ["0x10de"], (12, 4))
    assert found == health_checks.Finding("GPU", "A card (8.59 GB of 25.8 GB free)")


def test_an_integrated_gpu_is_not_a_finding(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    assert health_checks.gpu((), ["0x8086"], None).wrong == ""


def test_amx_is_turned_off(monkeypatch):
    built = {"AMX_INT8"}
    assert "turned off" in health_checks._amx(built).value
    monkeypatch.setenv("LCP_EXTRA_BUFTS", "1")
    assert "crashes" in health_checks._amx(built).advice


def test_the_disk_of_a_missing_folder_is_measured(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "model").write_bytes(bytes(3 << 20))
    assert "(3.15 MB, " in health_checks.space("models", tmp_path / "there").value
    found = health_checks.space("models", tmp_path / "not" / "yet")
    assert "(0 bytes, " in found.value
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.toml", 'temp = "hot"', "temp must be"),
        ("config.toml", "[persona.x]\ntemp = 99", "temp must be"),
        ("config.toml", "temp =", "config.toml"),
        ("models.toml", "[x", "models.toml"),
    ],
)
def test_unreadable_settings_are_a_finding(home, file, text, said):
    folder = paths.config()
    folder.mkdir(parents=True)
    assert health_checks.configured(folder) == ""
    (folder / file).write_text(text)
    assert said in health_checks.configured(folder)
    assert health_checks.space("settings", folder, health_checks.configured(folder)).wrong


def test_an_unreadable_folder_counts_as_missing(tmp_path):
    folder = tmp_path / ("x" * 300)  # an error, as in a folder of another user
    assert "not here" in health_checks.models("Ollama", [folder]).value
    assert "(0 bytes, " in health_checks.space("models", folder).value


def test_all_model_folders_are_listed(home, tmp_path, monkeypatch):
    """The folders of `lcp list`: a model in each of them is found."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    for place in places()[LM_STUDIO] + places()[OWN]:
        folder = place / "owner/repo" if place not in places()[OWN] else place
        folder.mkdir(parents=True)
        (folder / "x-Q8_0.gguf").write_bytes(bytes(2 << 20))
    told = {finding.name: finding.value for finding in health_checks._folders()}
    assert set(places()) <= set(told)
    for place, folders in places().items():
        for folder in folders:
            assert str(folder) in told[place]
    assert "not here" in told["Ollama"]
    assert told[LM_STUDIO].count("(2.10 MB)") == 2
    assert "(2.10 MB, " in told[OWN]
    assert {one.stored.place for one in installed().values()} <= set(told)


@pytest.mark.slow
def test_the_page_and_its_json_agree(home):
    page, data = (
        subprocess.run(
            [*COMMAND, "doctor", *flags],
            env=terminal_environment(home),
            capture_output=True,
            check=False,
        )
        for flags in ([], ["--json"])
    )
    found = json.loads(data.stdout)
    assert set(found["findings"][0]) == {"name", "value", "wrong", "advice", "mend"}
    wrong = [f["name"] for f in found["findings"] if f["wrong"]]
    assert found["ok"] == (not wrong)
    assert data.returncode == page.returncode == (1 if wrong else 0)
    for finding in found["findings"]:
        assert finding["name"] in page.stdout.decode()


def test_a_folder_that_cannot_be_created_suggests_lcp_home(tmp_path, monkeypatch):
    """As with /nowhere/hub, whose nearest existing folder is /."""
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.F_OK and Path(path).exists())
    above = health_checks.space("cache", tmp_path / "not" / "here")
    assert "LCP_HOME" in above.mend and "chown" not in above.mend
    assert health_checks.space("cache", tmp_path).mend.endswith(f'"{tmp_path}"')
