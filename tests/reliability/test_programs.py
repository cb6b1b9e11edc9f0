"""The programs here at a small scale, as they are called: each exits with 1 if a promise was broken.

Each is a process of its own with one thread, because most of them fork.
"""

import re

import pytest

from tests.helpers.warm_scripts import run_script
from tests.reliability import arguments

KILLS = "kills kills=6 runs=1 seed=2"  # the one that `make test` runs
PROGRAMS = {
    KILLS: 6,
    "damaged flips=60 cuts=20": 240,
    "dead_rank count=2": 2,
    "failpoints count=7": 7,
    "full_disk places=12 runs=2": 20,
    "hostile every=9 scripts_every=3 recipes=1": 100,
    "killed_workers count=2": 2,
    "kills kills=20 runs=2 seed=1": 20,
    "lost_images": 5,
    "signals count=6 script=1": 7,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "program", [KILLS, *(pytest.param(program, marks=pytest.mark.long) for program in PROGRAMS if program != KILLS)]
)
def test_promises_hold(program: str) -> None:
    name, *words = program.split()
    done = run_script(["-m", f"tests.reliability.{name}", *words])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    said = re.search(r": (\d+) tried, 0 broken\n$", done.stdout)
    assert said, done.stdout
    assert int(said[1]) >= PROGRAMS[program]


def test_a_broken_promise_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        arguments.finish(["it fell"], 3, "all stand")
    assert capsys.readouterr().out == "BROKEN: it fell\nall stand: 3 tried, 1 broken\n"
