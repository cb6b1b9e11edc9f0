"""python scripts/benchmark.py ... is `detkit benchmark ...`."""

from detkit.commands import run

if __name__ == "__main__":
    run("benchmark")
