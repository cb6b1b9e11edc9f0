"""Some hundred broken images of all kinds keep the promises that ``mutated_images`` states."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from detkit.data.checking.process_pool import Death
from tests.reliability import mutated_images
from tests.reliability.image_faults import MUTATIONS, originals
from tests.reliability.mutated_images import Mutant, Outcome, judge, main, mutants, run

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, about damaged metadata and large sizes


def test_promises_hold() -> None:
    """Every kind on every original, and some of them twice."""
    made = mutants(300)
    assert len(originals()) * len(MUTATIONS) == 264 and {mutant.kind for mutant in made} == set(MUTATIONS)
    result = run(made, num_workers=1)
    assert result.broken == []
    outcomes = Counter(what for (_, what), number in result.counts.items() for _ in range(number))
    assert outcomes.total() == 300
    assert outcomes["refused"] > 100 and outcomes["same pixels"] > 20 and outcomes["other pixels"] > 20


def test_mutants_are_the_same_for_the_same_seed() -> None:
    assert mutants(40, seed=3) == mutants(40, seed=3) != mutants(40, seed=4)


@pytest.mark.parametrize(
    ("outcome", "kind", "original", "told"),
    [
        (Death("SIGSEGV"), "bits", "JPEG", ("died", r"the process died (SIGSEGV)")),
        (Outcome("raised", "KeyError: 1", wrong="raises another error"), "bits", "GIF", ("raised", "KeyError: 1")),
        (Outcome("decoded", grown_mb=1000), "bits", "GIF", ("decoded", "memory grew by 1000 MB")),
        (Outcome("decoded", changed=1), "cut", "BMP", ("other pixels", "partial or changed picture: 1 pixels")),
        (Outcome("decoded", changed=400), "sealed cut", "JPEG", ("other pixels", "400 pixels")),
        (Outcome("decoded", changed=300), "sealed cut", "JPEG", ("other pixels", "")),
        (Outcome("decoded", changed=1), "bits", "PNG 16", ("other pixels", "1 pixels differ")),
        (Outcome("decoded", changed=1), "bits", "BMP", ("other pixels", "")),
        (Outcome("refused", "FILE: cut"), "renamed", "BMP", ("refused", "a whole file is refused: FILE: cut")),
        (Outcome("refused", "FILE: cut"), "cut", "BMP", ("refused", "")),
        (Outcome("decoded"), "bits", "BMP", ("same pixels", "")),
    ],
)
def test_verdicts(outcome: Outcome | Death, kind: str, original: str, told: tuple[str, str]) -> None:
    what, wrong = mutated_images._verdict(Mutant(0, kind, original, ".jpg", b""), outcome)
    assert what == told[0] and told[1] in wrong and bool(wrong) == bool(told[1])


def test_other_errors_and_deaths_are_seen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def decode(path: Path) -> None:
        if path.suffix == ".png":
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyError("no DataError")

    monkeypatch.setattr(mutated_images, "decode_image", decode)
    with pytest.raises(SystemExit, match="1"):
        main(["count=20", "workers=1"])
    said = capsys.readouterr().out
    assert "the process died (SIGKILL)" in said and "raises another error: KeyError: 'no DataError'" in said
    assert "20 tried, 20 broken" in said


def test_a_refusal_names_the_file(tmp_path: Path) -> None:
    outcome = judge(Mutant(0, "cut", "JPEG", ".gif", originals()["JPEG"][:500]), tmp_path)
    assert outcome.what == "refused" and outcome.text.startswith("FILE: the JPEG is cut") and outcome.wrong == ""
