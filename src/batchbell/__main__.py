"""`python -m batchbell` is the same command as `batchbell`."""

from batchbell.cli import main

if __name__ == "__main__":
    main()
