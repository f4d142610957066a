"""How fast, how large, how soon: what Batchbell costs, measured as its users would feel it.

Every figure comes from real parts: real processes, sockets, SQLite files with
`synchronous=FULL`, and a PostgreSQL with its default durable settings. Where a figure depends on
the machine, it is a ratio to something plain that was measured in the same run. Nothing is
asserted by time; what is asserted is that the work was done, all of it and only once.

Run `python -m bench` for everything, `python -m bench a d` for some, `--quick` for a rough look.
"""
