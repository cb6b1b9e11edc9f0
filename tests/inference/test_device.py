"""What a machine is called."""

import platform

import pytest
import torch

from detkit.inference.device import instruction_set


@pytest.mark.parametrize(
    ("has", "name"),
    [
        (["avx2"], "AVX2"),
        (["avx2", "avx_vnni"], "AVX2 with VNNI"),
        (["avx2", "avx512_f"], "AVX-512"),
        (["avx2", "avx512_f", "avx512_vnni"], "AVX-512 with VNNI"),
        ([], "x86_64"),
    ],
)
def test_instruction_set(has: list[str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = torch.cpu.get_capabilities()
    if platform.machine() == "x86_64":
        assert known.keys() >= {*has}  # as torch spells them
    capabilities = {"architecture": "x86_64", **dict.fromkeys(has, True)}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert instruction_set() == name


def test_instruction_set_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "arm64", "neon": True})
    assert instruction_set() == "arm64"
