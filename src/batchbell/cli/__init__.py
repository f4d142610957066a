"""The command line: what a person or a script types.

It starts the processes (`runtime`), and otherwise speaks HTTP to a running server through
`client`, as any other program would; only what must work without a server opens the database.
Each command says what it did in plain words, or in JSON with `--json`, and its exit code tells the
outcome. A failure that we foresee is one line, `batchbell: error: …`, and never a traceback.
Nothing heavy is imported before the command that needs it runs, so that `--help` is quick.
"""

from __future__ import annotations


def main() -> None:
    """Run the command that `sys.argv` names, and exit with its code."""
    from batchbell.cli.app import app

    app(prog_name="batchbell")
