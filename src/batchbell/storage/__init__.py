"""All SQL, and the only room that speaks SQLAlchemy.

Functions take a connection and their arguments and return the frozen types of `core.model`;
`engine.Store` runs them, reading or writing, on SQLite and on PostgreSQL alike. One transaction
may compose several of them: a batch's change, its event and its deliveries are written together
or not at all.

What is promised: a claim hands a row to one worker only, every write after a claim is fenced by
its lease token, and no transaction stays open while anything else is waited for. This room must
never decide what should happen; it asks `core.lifecycle`, inside the transaction where needed.
"""
