"""Who is let in, and who is not."""

from __future__ import annotations

from huaweicloudsdkdis import v2
from instrument import Sdk, case
from stream_methods import create


@case
def signatures(sdk: Sdk) -> None:
    """Another secret, another key, another's project: each is refused, and none changes anything."""
    create(sdk, "s")
    sdk.other("wrong secret", sdk.project).refused(
        "delete_stream", "DIS.4112", "The signature does not match.", 401, stream_name="s"
    )
    sdk.other("unknown", sdk.project).refused(
        "delete_stream", "DIS.4107", "The access key is invalid. ['AKunknown']", 401, stream_name="s"
    )
    sdk.other("owner", "foreign").refused("list_streams", "DIS.4117", "Invalid Project Id. [foreign]")
    sdk.other("foreigner", sdk.project).refused(
        "delete_stream", "DIS.4117", f"Invalid Project Id. [{sdk.project}]", stream_name="s"
    )
    sdk.equal("it is still there", sdk.list_streams().stream_names, ["s"])


@case
def temporary_keys(sdk: Sdk) -> None:
    """One that came with a security token signs in with it, and not without."""
    create(sdk, "s")
    sdk.equal("with it", sdk.other("temporary", sdk.project).list_streams().stream_names, ["s"])
    sdk.other("temporary, no token", sdk.project).refused(
        "list_streams", "DIS.4107", "The access key is invalid. ...", 401
    )


@case
def rights(sdk: Sdk) -> None:
    """Who may only read sees the stream, and is refused what would change it."""
    create(sdk, "s")
    reader = sdk.other("reader", sdk.project)
    sdk.equal("seen", reader.list_streams().stream_names, ["s"])
    reader.refused("delete_stream", "DIS.4116", "Invalid RBAC. ...", 403, stream_name="s")
    body = v2.CreateAppReq(app_name="a")
    reader.refused("create_app", "DIS.4116", "Invalid RBAC. ...", 403, body=body)
    sdk.equal("still there", sdk.list_streams().stream_names, ["s"])
