"""python scripts/convert_data.py ... is `detkit convert ...`."""

from detkit.commands import run

if __name__ == "__main__":
    run("convert")
