"""`/docs`: the API reference, on which calls can be tried. It needs no other server.

Swagger UI (https://swagger.io/tools/swagger-ui/) draws it from `/openapi.json`. Its files are part
of this package, so that the page works without a network.
"""

from __future__ import annotations

from importlib.resources import files

from starlette.responses import Response

from batchbell.core.errors import NotFound

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Only our own scripts run. Swagger UI sets styles on its elements, and its icons are `data:`."""
STATIC = files("batchbell.web") / "static"
ASSETS = {
    "docs.js": (STATIC / "docs.js", "text/javascript"),
    "swagger-ui.css": (STATIC / "swagger-ui" / "swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": (STATIC / "swagger-ui" / "swagger-ui-bundle.js", "text/javascript"),
}
PATHS = frozenset({"/docs", *(f"/docs/{name}" for name in ASSETS)})
KEPT_SECONDS = 3600
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Batchbell API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<main id="docs"></main>
<noscript>This page needs JavaScript; see <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/docs.js"></script>
</body>
</html>
"""


def page() -> Response:
    """The page itself."""
    headers = {"Content-Security-Policy": POLICY}
    return Response(PAGE, media_type="text/html", headers=headers)


def asset(name: str) -> Response:
    """A script or style sheet of the page. Raises NotFound."""
    if name not in ASSETS:
        raise NotFound("file of /docs", name)
    file, media_type = ASSETS[name]
    headers = {"Cache-Control": f"max-age={KEPT_SECONDS}"}
    return Response(file.read_bytes(), media_type=media_type, headers=headers)
