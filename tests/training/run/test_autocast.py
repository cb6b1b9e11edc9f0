"""bfloat16 falls away only where a CPU would have to imitate it."""

import pytest

from detkit.training.run.autocast import supported_precision


@pytest.mark.parametrize(
    ("given", "capabilities", "expected"),
    [
        ({"precision": "bf16-mixed", "accelerator": "cpu"}, {"avx2": True, "avx512_bf16": False}, "32-true"),
        ({"precision": "bf16-mixed", "accelerator": "cpu"}, {"avx512_bf16": True}, "bf16-mixed"),
        ({"precision": "bf16-mixed", "accelerator": "cpu"}, {"neon": True, "bf16": True}, "bf16-mixed"),
        ({"precision": "bf16-mixed", "accelerator": "gpu"}, {}, "bf16-mixed"),
        ({"precision": "32-true", "accelerator": "cpu"}, {"avx512_bf16": True}, "32-true"),
        ({"accelerator": "cpu"}, {}, None),
    ],
)
def test_precision(given: dict[str, str], capabilities: dict[str, bool], expected: str | None) -> None:
    assert supported_precision(given, capabilities) == expected
