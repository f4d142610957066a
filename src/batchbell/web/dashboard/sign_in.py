"""The way in and out, the choice of a project, and the files that pages are made with."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from batchbell.core import session
from batchbell.core.errors import AccessDenied, NotFound
from batchbell.web.auth import DASHBOARD, SESSION_COOKIE, SIGN_IN, Gate, is_page
from batchbell.web.call import Surface
from batchbell.web.dashboard.page import (
    ASSETS,
    PROJECT_COOKIE,
    Posted,
    Visit,
    bare,
    begin_session,
    keep_session,
    page_router,
    read_form,
    set_cookie,
)

router = page_router()

YEAR_SECONDS = 365 * 86_400
MEDIA_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@router.get("/assets/{name}")
def asset(name: str) -> Response:
    known = {file.name: file for file in ASSETS.iterdir()}
    kind = MEDIA_TYPES.get(name.rpartition(".")[2])
    if name not in known or kind is None:
        raise NotFound("file of the dashboard", name)
    headers = {"Cache-Control": f"public, max-age={YEAR_SECONDS}, immutable"}
    return Response(known[name].read_bytes(), media_type=kind, headers=headers)


@router.get("/sign-in")
async def sign_in_page(request: Request, next: str = DASHBOARD) -> Response:
    surface: Surface = request.app.state.surface
    if await surface.keyring.is_local_mode():
        return RedirectResponse(_own(next), 303)
    return bare("sign_in.html", title="Sign in", next=_own(next), message="")


@router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    surface: Surface = request.app.state.surface
    form = await read_form(request)
    wanted = _own(form.get("next", DASHBOARD))
    try:
        key = await Gate(surface.keyring).admit(form.get("key", ""), request.scope)
    except AccessDenied as error:
        says = error.message if form.get("key") else "Enter an API key: it begins with bb_."
        return bare("sign_in.html", status=error.status, title="Sign in", next=wanted, message=says)
    text, _ = await begin_session(surface, key)
    response = RedirectResponse(wanted, 303)
    keep_session(request, response, text)
    response.delete_cookie(PROJECT_COOKIE, path=DASHBOARD)
    return response


@router.post("/sign-out")
async def sign_out(form: Posted) -> Response:
    response = RedirectResponse(SIGN_IN, 303)
    for name in (SESSION_COOKIE, PROJECT_COOKIE):
        response.delete_cookie(name, path=DASHBOARD, httponly=True, samesite="strict")
    return response


@router.post("/project")
async def choose_project(visitor: Visit, form: Posted) -> Response:
    """Look at another project: only those that this visitor may choose are there."""
    wanted = form.need("project")
    if wanted not in {one.id for one in visitor.projects}:
        raise NotFound("project", wanted)
    response = RedirectResponse(DASHBOARD, 303)
    set_cookie(visitor.request, response, PROJECT_COOKIE, wanted, session.SESSION_SECONDS)
    return response


def _own(url: str) -> str:
    """Where to go on: a page of ours, whatever a link to the way in names."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return DASHBOARD
    ours = not parts.scheme and not parts.netloc and "\\" not in url and is_page(parts.path)
    return url if ours and not url.startswith("//") else DASHBOARD
