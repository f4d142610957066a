"""`/docs`: the OpenAPI document as one page that needs no other server and no script."""

from __future__ import annotations

from html import escape
from typing import Any

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code{background:#8881;padding:.1em .3em;border-radius:.2em}h2{margin-top:2rem}"
    "td,th{text-align:left;padding:.1rem 1rem .1rem 0;vertical-align:top}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}a{color:#8bf}}"
)


def reference_page(document: dict[str, Any]) -> str:
    """The page, for people."""
    parts = [
        _operation(method, path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{title}</h1><p>{escape(document['info'].get('description', ''))}</p>"
        '<p>For programs: <a href="/openapi.json">/openapi.json</a>.</p>' + "".join(parts)
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = [
        _row(parameter["name"], parameter.get("description") or f"in the {parameter['in']}")
        for parameter in operation.get("parameters", ())
    ]
    rows += [_row(f"body: {name}", "application/json") for name in _bodies(operation)]
    rows += [_row(status, told["description"]) for status, told in operation["responses"].items()]
    return (
        f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
        f"<p>{escape(operation['summary'])}.</p><table>{''.join(rows)}</table>"
    )


def _bodies(operation: dict[str, Any]) -> list[str]:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    schema = content.get("schema", {})
    kinds = schema.get("anyOf", [schema]) if schema else []
    return [_name(kind) for kind in kinds]


def _name(schema: dict[str, Any]) -> str:
    if "items" in schema:
        return f"list of {_name(schema['items'])}"
    return str(schema.get("$ref", schema.get("type", "any"))).rpartition("/")[2]


def _row(name: str, meaning: str) -> str:
    return f"<tr><th><code>{escape(name)}</code></th><td>{escape(meaning)}</td></tr>"
