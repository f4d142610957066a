"""What every page is made with: who looks, the templates, and forms that prove to be ours."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, unquote

from fastapi import APIRouter, Depends, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import RedirectResponse, Response

from batchbell import __version__
from batchbell.core import session
from batchbell.core.errors import AccessDenied, InvalidRequest
from batchbell.core.model import DEFAULT_PROJECT
from batchbell.core.nearest import shown
from batchbell.storage import projects
from batchbell.storage.keys import Key
from batchbell.storage.projects import Project
from batchbell.web.auth import DASHBOARD, SESSION_COOKIE, is_open, session_in
from batchbell.web.bodies import read_body
from batchbell.web.call import Call, Surface, call_of
from batchbell.web.dashboard import formats, live
from batchbell.web.errors import Code
from batchbell.web.paths import IdRoute, path_sent

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    # Not `no-referrer`: a browser would then say that our own forms come from nowhere.
    "Referrer-Policy": "same-origin",
    "Vary": "Accept, Cookie",
    "Cache-Control": "no-store",
}
PROJECT_COOKIE = "batchbell_project"
NOTE_COOKIE = "batchbell_note"
NOTE_MAX = 400
FORM_MAX_BYTES = 64 * 2**10
LOCAL_SESSION = "local"
"""Stands for a session where nobody has to sign in."""
MENU = (
    ("overview", "Overview", ""),
    ("batches", "Batches", "/batches"),
    ("submissions", "Submissions", "/submissions"),
    ("endpoints", "Endpoints", "/endpoints"),
    ("events", "Events", "/events"),
    ("deliveries", "Deliveries", "/deliveries"),
    ("replays", "Replays", "/replays"),
    ("accounts", "Accounts", "/accounts"),
    ("keys", "API keys", "/keys"),
    ("projects", "Projects", "/projects"),
    ("settings", "Settings", "/settings"),
    ("system", "System", "/system"),
)
OF_OPERATORS = frozenset({"projects", "settings", "system"})
"""Of each section its name, what it is called, and where it is."""
ASSETS = files("batchbell.web.dashboard") / "assets"


@cache
def templates() -> Environment:
    """The pages. Whatever is put into one is escaped, and a name that is not there is an error."""
    made = Environment(
        loader=PackageLoader("batchbell.web.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(formats.FILTERS)
    made.globals.update(
        version=__version__, asset=asset_url, root=DASHBOARD, menu=MENU, of_operators=OF_OPERATORS
    )
    return made


@cache
def asset_url(name: str) -> str:
    """Where a file of the pages is: under another address once it has changed."""
    digest = hashlib.blake2b((ASSETS / name).read_bytes(), digest_size=6).hexdigest()
    return f"{DASHBOARD}/assets/{name}?{digest}"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whoever looks at a page, and which project at."""

    call: Call
    """In the project that is looked at."""
    request: Request
    key: Key | None
    """None in local mode."""
    project: Project
    projects: Sequence[Project]
    """Those to choose from."""
    form_token: str

    @property
    def is_operator(self) -> bool:
        """Whether they look after the server, whatever project they look at."""
        return self.key is None or self.key.project_id == DEFAULT_PROJECT

    @property
    def now(self) -> float:
        return self.call.context.clock()

    def signed_in(self, key: Key, text: str, *, secret: str) -> Visitor:
        """Who they are once they have a session, with a key of the project that they look at."""
        token = session.form_token(text, self.project.id, secret=secret)
        choice = self.projects if key.project_id == DEFAULT_PROJECT else [self.project]
        return replace(self, key=key, projects=choice, form_token=token)


async def visitor_of(request: Request) -> Visitor:
    """A dependency of every page but the way in. Raises InvalidRequest."""
    names = Counter(name for name, _ in request.query_params.multi_items())
    for name, times in names.most_common(1):
        if times > 1:
            raise InvalidRequest(f"The address names {shown(name)} more than once.")
    own = await call_of(request)
    key: Key | None = request.scope["state"].get("key")
    store = own.context.store
    if own.is_operator:
        choice = await store.read(projects.list_projects)
    else:
        choice = [await store.read(projects.find_project, own.project_id)]
    chosen = request.cookies.get(PROJECT_COOKIE, own.project_id)
    by_id = {one.id: one for one in choice}
    project = by_id.get(chosen, by_id[own.project_id])
    secret = await own.surface.keyring.form_secret(key)
    token = session.form_token(_session_text(request, key), project.id, secret=secret)
    call = replace(own, project_id=project.id)
    return Visitor(call, request, key, project, choice, token)


async def begin_session(surface: Surface, key: Key) -> tuple[str, str]:
    """The text of a session that begins now, and the secret that signs it."""
    secret = await surface.keyring.form_secret(key)
    return session.begin(key.id, secret=secret, now=surface.context.clock()), secret


def keep_session(request: Request, response: Response, text: str) -> None:
    """Have the browser keep a session that has begun."""
    set_cookie(request, response, SESSION_COOKIE, text, session.SESSION_SECONDS)


async def sight_of(request: Request) -> live.Sight:
    """What a stream of this page shows. Of a visitor, pages know the key and the project alone."""
    visitor = await visitor_of(request)
    key_id = visitor.key.id if visitor.key else None
    return live.Sight((str(request.url), visitor.project.id, key_id), visitor.form_token)


def _session_text(request: Request, key: Key | None) -> str:
    return LOCAL_SESSION if key is None else session_in(request.scope)


Visit = Annotated[Visitor, Depends(visitor_of)]


async def operator_of(visitor: Visit) -> Visitor:
    """A visitor who looks after the server; to all others the page is not there."""
    if not visitor.is_operator:
        raise InvalidRequest("There is no such page.", code=Code.UNKNOWN_URL, status=404)
    return visitor


OperatorVisit = Annotated[Visitor, Depends(operator_of)]


class Form(dict[str, str]):
    """The fields of a form; what was left empty is not there."""

    def need(self, name: str) -> str:
        """Raises InvalidRequest where the field was left empty."""
        if name not in self:
            raise InvalidRequest(f"Fill in {formats.words(name)!r}.", param=name)
        return self[name]


async def read_form(request: Request) -> Form:
    """The fields of a form that a page of our own sent. Raises AccessDenied, InvalidRequest."""
    check_origin(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InvalidRequest("This page takes forms.", code=Code.UNSUPPORTED_BODY, status=415)
    body = await read_body(request, most=FORM_MAX_BYTES)
    try:
        fields = parse_qsl(body.decode("ascii"), max_num_fields=100, errors="strict")
    except ValueError as error:
        raise InvalidRequest("The form cannot be read.") from error
    if any("\x00" in name + value for name, value in fields):
        raise InvalidRequest("The form holds a NUL character.")
    return Form({name: value.strip() for name, value in fields if value.strip()})


def check_origin(request: Request) -> None:
    """Refuse what another site sends. Raises AccessDenied."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    site = request.headers.get("sec-fetch-site", "same-origin").strip().lower()
    ours = {None, f"http://{host}", f"https://{host}"}
    if site != "same-origin" or origin not in ours:
        raise AccessDenied(
            "This form was sent by another site. Nothing was done.",
            code=Code.ORIGIN_NOT_ALLOWED,
            status=403,
        )


async def form_of(visitor: Visit) -> Form:
    """The fields that this visitor sent from a page of this project. Raises AccessDenied."""
    form = await read_form(visitor.request)
    given = form.pop("token", "")
    secret = await visitor.call.surface.keyring.form_secret(visitor.key)
    text = _session_text(visitor.request, visitor.key)
    if not session.is_form_token(given, text, visitor.project.id, secret=secret):
        raise AccessDenied(
            "This page is out of date: you signed in again, or chose another project, since it was"
            " opened. Nothing was done. Go back, reload it, and try again.",
            code=Code.ORIGIN_NOT_ALLOWED,
            status=403,
        )
    return form


Posted = Annotated[Form, Depends(form_of)]


def show(
    visitor: Visitor, template: str, *, section: str, title: str, url: str = "", **more: Any
) -> Response:
    """A page. For a stream it is only what changes in it.

    `url` is where the page is found, if not where it was asked for: a form may show another one.
    """
    is_live = visitor.request.scope["state"].get("live", False)
    context = {
        "visitor": visitor,
        "section": section,
        "title": title,
        "now": visitor.now,
        "is_live": is_live,
        "frame": "live.html" if is_live else "base.html",
        "address": _address(visitor.request),
        "url": url or path_sent(visitor.request.scope),
        "is_answer": visitor.request.method == "POST",
        **more,
    }
    found = templates().get_template(template)
    if is_live:
        return Response(found.render(context), media_type=live.PAGE_TYPE)
    note = unquote(visitor.request.cookies.get(NOTE_COOKIE, ""))
    page = found.render(context, note=note)
    response = Response(page, headers=HEADERS, media_type=live.PAGE_TYPE)
    if note:
        response.delete_cookie(NOTE_COOKIE, path=DASHBOARD, httponly=True, samesite="strict")
    return response


def _address(request: Request) -> str:
    """Where programs reach this server, as the browser does."""
    return f"{request.url.scheme}://{request.url.netloc}"


def bare(template: str, *, status: int = 200, **context: Any) -> Response:
    """A page outside of any project, such as the way in."""
    page = templates().get_template(template).render(is_live=False, **context)
    return Response(page, status, headers=HEADERS, media_type=live.PAGE_TYPE)


def done(url: str, note: str) -> Response:
    """On to a page that says what was done."""
    response = RedirectResponse(url, 303)
    keep = {"path": DASHBOARD, "httponly": True, "samesite": "strict", "max_age": 60}
    response.set_cookie(NOTE_COOKIE, quote(note[:NOTE_MAX]), **keep)  # type: ignore[arg-type]
    return response


def set_cookie(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    """A cookie that no script reads and no other site sends."""
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path=DASHBOARD,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


class PageRoute(IdRoute):
    """A page. Asked for as `text/event-stream` it is sent again whenever it has changed.

    What is open to everybody is not: a stream takes one of the places of a project.
    """

    def get_route_handler(self) -> live.Handle:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            if _follows(request) and not is_open(request.scope["path"]):
                return live.Stream(request, handle, await sight_of(request))
            return await handle(request)

        return answer


def _follows(request: Request) -> bool:
    return request.method == "GET" and live.MEDIA_TYPE in request.headers.get("accept", "")


def page_router() -> APIRouter:
    """What every file of pages begins with."""
    return APIRouter(prefix=DASHBOARD, route_class=PageRoute, include_in_schema=False)
