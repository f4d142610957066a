"""What the HTTP API takes and answers, declared once; one file for each noun.

The check of a body, the OpenAPI document, the client's types and their reference follow from these
types. A request is a Pydantic model and forbids fields that it does not declare. An answer is a
msgspec struct; who reads it passes over fields that it does not know. Both `web` and `client`
import this room; it knows `core` alone.
"""
