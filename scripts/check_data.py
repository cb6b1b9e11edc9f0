"""python scripts/check_data.py ... is `detkit check ...`."""

from detkit.commands import run

if __name__ == "__main__":
    run("check")
