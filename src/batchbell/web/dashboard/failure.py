"""What a page says where it cannot be shown."""

from __future__ import annotations

from urllib.parse import quote

import msgspec
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from batchbell.core.errors import AccessDenied
from batchbell.core.model import DEFAULT_PROJECT
from batchbell.storage.keys import Key
from batchbell.web.auth import DASHBOARD, SIGN_IN, is_open, is_page
from batchbell.web.dashboard.page import MENU, bare
from batchbell.web.errors import response_to
from batchbell.web.paths import path_sent

TITLES = {
    403: "Not from here",
    404: "Not found",
    405: "Not possible here",
    409: "Not now",
    410: "Gone",
    429: "Too often",
    500: "Something went wrong",
    502: "The provider does not answer",
    503: "Not now",
    507: "The disk is full",
}


def page_of(error: Exception, scope: Scope) -> Response | None:
    """The page in place of the one that was asked for; None where no page was."""
    if not is_page(scope["path"]):
        return None
    if isinstance(error, AccessDenied) and error.status == 401 and scope["path"] != SIGN_IN:
        return RedirectResponse(f"{SIGN_IN}?next={quote(_wanted(scope), safe='')}", 303)
    return page_in_place_of(response_to(error), scope)


def page_in_place_of(answer: Response, scope: Scope) -> Response:
    """The page that says what an error of the API says, and leads to the section it was in."""
    message = msgspec.json.decode(bytes(answer.body))["error"]["message"]
    title = TITLES.get(answer.status_code, "That was not understood")
    return bare(
        "failure.html",
        status=answer.status_code,
        title=title,
        message=message,
        back=_section(scope),
        elsewhere=answer.status_code == 404 and _may_choose(scope),
    )


def _may_choose(scope: Scope) -> bool:
    """Whether somebody who was let in may look at other projects."""
    state = scope.get("state", {})
    key: Key | None = state.get("key")
    is_in = "project_id" in state and not is_open(scope["path"])
    return is_in and (key is None or key.project_id == DEFAULT_PROJECT)


def _section(scope: Scope) -> tuple[str, str]:
    """What it is called, and where it is."""
    found = [(says, at) for _, says, at in MENU if at and scope["path"].startswith(DASHBOARD + at)]
    _, says, at = MENU[0]
    return found[0] if found else (says, at)


def _wanted(scope: Scope) -> str:
    """Where to go on after signing in: what was asked for, if it can be asked for again."""
    if scope["method"] != "GET":
        return DASHBOARD
    query = scope["query_string"].decode("latin-1")
    path = path_sent(scope)
    return f"{path}?{query}" if query else path
