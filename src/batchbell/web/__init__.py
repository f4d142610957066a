"""The HTTP surface: what users and their programs say to us, and how they are answered.

Errors and pages come in OpenAI's shapes, so that OpenAI's SDKs read us. Every request is judged
by `auth.Gate` before a handler sees it, every body is read under a cap and checked field by
field, and every failure is answered in the one error shape. Whatever is answered is described in
the OpenAPI document. This room must never write a key, an `Authorization` header, a query string
or a webhook URL to a log, nor decide what happens to a batch or a delivery.
"""
