"""Files, which are the provider's: calls and answers are passed on as they come."""

from __future__ import annotations

from fastapi import Request
from starlette.responses import Response

from batchbell.web.call import Caller
from batchbell.web.gateway.proxy import account_of_file, pass_on, upload
from batchbell.web.openapi import AccountName, passes, takes_file
from batchbell.web.parameters import strict_router
from batchbell.web.paths import IdRoute

router = strict_router("files", route_class=IdRoute)


@router.post(
    "/v1/files",
    summary="Upload a file to the provider",
    openapi_extra=takes_file(),
    **passes(),
)
async def upload_file(call: Caller, request: Request, bb_account: AccountName = None) -> Response:
    return await upload(call, request)


@router.get("/v1/files", summary="List the provider's files", **passes())
async def list_files(call: Caller, request: Request, bb_account: AccountName = None) -> Response:
    return await pass_on(call, request, lambda gateway: gateway.files())


@router.get("/v1/files/{file_id:id}", summary="One file of the provider's", **passes())
async def get_file(
    call: Caller, request: Request, file_id: str, bb_account: AccountName = None
) -> Response:
    account = await account_of_file(call, request, file_id)
    return await pass_on(call, request, lambda gateway: gateway.file(file_id), account=account)


@router.get(
    "/v1/files/{file_id:id}/content",
    summary="The bytes of a file of the provider's",
    **passes(media_type="application/octet-stream"),
)
async def get_file_content(
    call: Caller, request: Request, file_id: str, bb_account: AccountName = None
) -> Response:
    account = await account_of_file(call, request, file_id)
    return await pass_on(
        call, request, lambda gateway: gateway.content(file_id), account=account, packed=True
    )


@router.delete("/v1/files/{file_id:id}", summary="Delete a file at the provider", **passes())
async def delete_file(
    call: Caller, request: Request, file_id: str, bb_account: AccountName = None
) -> Response:
    account = await account_of_file(call, request, file_id)
    return await pass_on(call, request, lambda gateway: gateway.file(file_id), account=account)
