"""python scripts/predict.py ... is `detkit predict ...`."""

from detkit.commands import run

if __name__ == "__main__":
    run("predict")
