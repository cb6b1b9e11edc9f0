"""python -m detkit ... is `detkit ...`."""

from detkit.commands import main

if __name__ == "__main__":
    main()
