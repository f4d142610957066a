"""Projects: what an operator makes for others."""

from __future__ import annotations

from starlette.responses import Response

from batchbell.web import projects as api
from batchbell.web.dashboard.page import OperatorVisit, Posted, done, page_router, show

router = page_router()


@router.get("/projects")
async def list_page(visitor: OperatorVisit) -> Response:
    return show(
        visitor, "projects.html", section="projects", title="Projects", rows=visitor.projects
    )


@router.post("/projects")
async def create(visitor: OperatorVisit, form: Posted) -> Response:
    made = await api.create(visitor.call, {"name": form.need("name")})
    return done("/dashboard/projects", f"Project {made.name} is there: choose it in the menu.")
