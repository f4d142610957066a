"""The only room that opens sockets to others.

Calls to receivers go to addresses that were judged when the socket was opened, whatever the
URL's name resolved to a moment before; calls to providers go where the operator pointed them.
Every exchange has an end on the wall clock and a cap on what is read. No redirects, and no proxies
from the environment. This room must never read the database or decide what an answer means.
"""
