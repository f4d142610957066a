"""The duties that run for ever: watching, delivering, cleaning.

Each is the same small thing: claim due work under a lease, do the I/O, write the decision,
fenced, and say whether there was anything to do. `loop.Loop` calls the step again, or waits to be
woken. Workers meet only through the database and never import each other; a step that fails is
logged, counted and tried again.
"""
