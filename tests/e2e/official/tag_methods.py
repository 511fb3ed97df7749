"""Tags of streams, and the streams that have them."""

from __future__ import annotations

from typing import Any

from huaweicloudsdkdis import v2
from instrument import Sdk, exercise
from stream_methods import create, stream_id

NO_STREAM = "A" * 19
MISSING = "The resource does not exist. ..."


def tags(**values: str) -> list[Any]:
    return [v2.Tag(key=key, value=value) for key, value in values.items()]


def add(sdk: Sdk, stream: str, **values: str) -> None:
    body = v2.BatchCreateTagsReq(action="create", tags=tags(**values))
    sdk.done(f"tags of {stream}", sdk.batch_create_tags(stream_id=stream_id(sdk, stream), body=body), 204)


def tags_of(sdk: Sdk, stream: str = "s") -> dict[str, str]:
    answer = sdk.show_stream_tags(stream_id=stream_id(sdk, stream))
    found = {tag.key: tag.value for tag in answer.tags}
    sdk.told(f"tags of {stream}", answer, {"tags": [{"key": key, "value": value} for key, value in found.items()]})
    shown = sdk.show_stream(stream_name=stream).tags
    sdk.equal("tags in the description", {tag.key: tag.value for tag in shown}, found)
    return found


@exercise
def create_tag(sdk: Sdk) -> None:
    """A key has one value, the last; ten keys at most."""
    create(sdk, "s")
    where = stream_id(sdk, "s")

    def put(key: str, value: str) -> Any:
        return v2.CreateTagReq(tag=v2.Tag(key=key, value=value))

    for key, value in (("城市", "北京"), ("city", ""), ("城市", "上海")):
        sdk.done(f"tag {key}", sdk.create_tag(stream_id=where, body=put(key, value)), 204)
    sdk.equal("two tags", tags_of(sdk), {"城市": "上海", "city": ""})
    sdk.refused("create_tag", "DIS.4603", MISSING, stream_id=NO_STREAM, body=put("k", "v"))
    for key, value in (("", "v"), ("a b", "v"), ("k" * 37, "v"), ("k", "v" * 44)):
        sdk.refused("create_tag", "DIS.4200", "Invalid request. ...", stream_id=where, body=put(key, value))
    for number in range(8):
        sdk.create_tag(stream_id=where, body=put(f"k{number}", "v"))
    message = "The number of resource tags has reached the maximum."
    sdk.refused("create_tag", "DIS.4601", message, stream_id=where, body=put("k8", "v"))


@exercise
def show_stream_tags(sdk: Sdk) -> None:
    """None, those it was made with, and those that came later."""
    create(sdk, "bare")
    sdk.equal("none", tags_of(sdk, "bare"), {})
    create(sdk, "s", tags=tags(first="1"))
    sdk.equal("from the start", tags_of(sdk), {"first": "1"})
    add(sdk, "s", second="2")
    sdk.equal("and later", tags_of(sdk), {"first": "1", "second": "2"})
    sdk.refused("show_stream_tags", "DIS.4603", MISSING, stream_id=NO_STREAM)


@exercise
def delete_tag(sdk: Sdk) -> None:
    """By its key, which may need escaping in the path."""
    create(sdk, "s", tags=tags(城市="北京", k="v"))
    where = stream_id(sdk, "s")
    sdk.done("deletion", sdk.delete_tag(stream_id=where, key="城市"), 204)
    sdk.equal("what is left", tags_of(sdk), {"k": "v"})
    sdk.refused("delete_tag", "DIS.4604", "The key does not exist. ...", stream_id=where, key="城市")
    sdk.refused("delete_tag", "DIS.4603", MISSING, stream_id=NO_STREAM, key="k")


@exercise
def batch_create_tags(sdk: Sdk) -> None:
    """Several at once: known keys are overwritten; a key given twice, or one too many, changes nothing."""
    create(sdk, "s", tags=tags(a="1"))
    add(sdk, "s", a="2", b="3")
    add(sdk, "s", a="2", b="3")
    sdk.equal("two tags", tags_of(sdk), {"a": "2", "b": "3"})
    where = stream_id(sdk, "s")

    def refused(code: str, message: str, wanted: list[Any], action: str = "create", where: str = where) -> None:
        body = v2.BatchCreateTagsReq(action=action, tags=wanted)
        sdk.refused("batch_create_tags", code, message, stream_id=where, body=body)

    refused("DIS.4200", "Invalid request. ...", [*tags(c="1"), *tags(c="2")])
    many = tags(**{f"k{number}": "v" for number in range(9)})
    refused("DIS.4601", "The number of resource tags has reached the maximum.", many)
    refused("DIS.4605", "The action is not supported. ...", tags(c="1"), action="replace")
    refused("DIS.4603", MISSING, tags(c="1"), where=NO_STREAM)
    sdk.equal("still two", tags_of(sdk), {"a": "2", "b": "3"})


@exercise
def batch_delete_tags(sdk: Sdk) -> None:
    """Those that are there go; those that are not are no error."""
    create(sdk, "s", tags=tags(a="1", b="2", c="3"))
    where = stream_id(sdk, "s")
    body = v2.BatchDeleteTagsReq(action="delete", tags=[*tags(a="1", b="other"), v2.Tag(key="gone")])
    for _ in range(2):
        sdk.done("deletion", sdk.batch_delete_tags(stream_id=where, body=body), 204)
    sdk.equal("what is left", tags_of(sdk), {"c": "3"})
    body = v2.BatchDeleteTagsReq(action="delete", tags=tags(**{"": "v"}))
    sdk.refused("batch_delete_tags", "DIS.4200", "Invalid request. ...", stream_id=where, body=body)
    body = v2.BatchDeleteTagsReq(action="delete", tags=tags(c="3"))
    sdk.refused("batch_delete_tags", "DIS.4603", MISSING, stream_id=NO_STREAM, body=body)


@exercise
def list_tags(sdk: Sdk) -> None:
    """Every key of the project with all its values, once each."""
    sdk.told("none", sdk.list_tags(), {"tags": []})
    create(sdk, "a", tags=tags(城市="北京", team="x"))
    create(sdk, "b", tags=tags(城市="上海", team="x"))
    create(sdk, "c")
    answer = sdk.list_tags()
    answer.tags.sort(key=lambda tag: tag.key)
    for tag in answer.tags:
        tag.values.sort()
    wanted = [{"key": "team", "values": ["x"]}, {"key": "城市", "values": ["上海", "北京"]}]
    sdk.told("two keys", answer, {"tags": wanted})
    sdk.delete_stream(stream_name="b")
    left = {tag.key: tag.values for tag in sdk.list_tags().tags}
    sdk.equal("without b", left, {"城市": ["北京"], "team": ["x"]})


@exercise
def list_resources_by_tags(sdk: Sdk) -> None:
    """Four kinds of conditions and the name, alone and together; counted, and in pages."""
    made = {"s1": {"env": "prod", "team": "x"}, "s2": {"env": "test", "team": "x"}, "s3": {"env": "prod"}, "other": {}}
    for name, values in made.items():
        create(sdk, name, tags=tags(**values))
    ids = {name: stream_id(sdk, name) for name in made}

    def ask(action: str = "filter", **fields: Any) -> Any:
        return sdk.list_resources_by_tags(body=v2.ListResourceInstancesReq(action=action, **fields))

    def having(*wanted: tuple[str, list[str]]) -> list[Any]:
        return [v2.Tags(key=key, values=values) for key, values in wanted]

    def check(names: list[str], **fields: Any) -> None:
        answer = ask(**fields)
        answer.resources.sort(key=lambda resource: resource.resource_name)
        resources = [
            {
                "resource_id": ids[name],
                "resource_name": name,
                "tags": [{"key": key, "value": value} for key, value in sorted(made[name].items())],
            }
            for name in sorted(names)
        ]
        for resource in answer.resources:
            resource.tags.sort(key=lambda tag: tag.key)
        wanted = {"resources": resources, "total_count": len(names)}
        sdk.told(f"streams by {sorted(fields)}", answer, wanted)

    prod, x = ("env", ["prod"]), ("team", ["x"])
    check(["s1", "s2", "s3", "other"])
    check(["s1"], tags=having(prod, x))
    check(["s1", "s2", "s3"], tags=having(("env", ["prod", "test"])))
    check(["s1", "s2"], tags=having(("team", [])))
    check(["s1", "s2", "s3"], tags_any=having(prod, x))
    check(["s2", "s3", "other"], not_tags=having(prod, x))
    check(["other"], not_tags_any=having(prod, x))
    check(["s1", "s2", "s3"], matches="[{key=resource_name, value=S}]")
    check(["s3"], matches='[{"key": "resource_name", "value": "s"}]', tags=having(prod), not_tags_any=having(x))
    pages: list[str] = []
    for offset in ("0", "3"):
        answer = ask(limit="3", offset=offset)
        sdk.equal("total of a page", answer.total_count, 4)
        pages += [resource.resource_name for resource in answer.resources]
    sdk.equal("by pages", sorted(pages), sorted(made))
    sdk.told("counted", ask("count", tags=having(prod)), {"total_count": 2})

    def refused(code: str, action: str = "filter", **fields: Any) -> None:
        message = "The action is not supported. ..." if code == "DIS.4605" else "Invalid request. ..."
        body = v2.ListResourceInstancesReq(action=action, **fields)
        sdk.refused("list_resources_by_tags", code, message, body=body)

    refused("DIS.4605", action="find")
    refused("DIS.4200", limit="0")
    refused("DIS.4200", offset="-1")
    refused("DIS.4200", tags=having(("", ["v"])))
    refused("DIS.4200", tags_any=having(prod, prod))
    refused("DIS.4200", tags=having(*((f"k{number}", ["v"]) for number in range(11))))
