"""The dashboard: pages for people, made by the server from the same functions that the API calls.

A page shows one project, and reads it by the functions that the API's routes read it by: no SQL,
and no HTTP to ourselves. Whoever opens one is let in by `auth.Gate`, as on the API: everybody on
this machine in local mode, else whoever signed in with a key. What is shown may come from anybody
(a provider, a receiver, whoever made a batch): it is text, and never markup. Nothing is loaded from
elsewhere, no script or style stands in a page, and every form proves that it is ours. A page works
without script; with it, what is marked as live follows the database while somebody looks.
"""
