"""Stream policies (API 5.1.7, 5.1.8): what the users of other accounts may do with a stream.

Only the project that owns a stream adds and lists them; `Directory.find` obeys them. A policy allows, none denies, and
there is no call to take one back: deleting the stream does.
"""

from __future__ import annotations

import logging

import anyio

from ..engine import Engine
from ..errors import CatalogConflict
from ..model import PolicyRule
from ..wire.errors import api_error, stream_not_found
from ..wire.http import Response, json_response
from ..wire.policies import ACTION_TYPES, EFFECT, decode_add_policy, encode_rules
from .call import Call
from .directory import Directory
from .documents import grant_key, grants_of
from .users import identifier, principal

logger = logging.getLogger("disstream.server")

MAX_PRINCIPALS = 100
"""Of one request."""
MAX_RULES = 1_000
"""Of one stream: what a list, and the deletion of the stream, cost at most."""


class Policies:
    def __init__(self, engine: Engine, directory: Directory) -> None:
        self._catalog = engine.catalog
        self._directory = directory
        self._adding = anyio.Lock()  # or several at once could pass MAX_RULES together

    async def add(self, call: Call) -> Response:
        request = decode_add_policy(call.body)
        if request.action_type not in ACTION_TYPES:
            told = f"[action_type={request.action_type[:80]!r} is not one of {', '.join(ACTION_TYPES)}]"
            raise api_error("DIS.4200", told)
        if request.effect and request.effect != EFFECT:
            raise api_error("DIS.4200", f"[effect={request.effect[:80]!r} is not {EFFECT}]")
        principals = _principals(request.principal_name)
        name = call.params["stream_name"]
        async with self._adding:
            while True:
                stream = await self._directory.find(call.project, name, call.stream_id or request.stream_id or name)
                stream_id = stream.doc.stream_id
                if request.stream_id and request.stream_id != stream_id:
                    # The wrong stream must not be opened to others because of its name.
                    raise stream_not_found(request.stream_id[:80], call.project)
                wanted = {grant_key(stream_id, *who, request.action_type) for who in principals}
                known = {key for key, _ in await self._catalog.scan(grants_of(stream_id), limit=2 * MAX_RULES)}
                if len(known | wanted) > MAX_RULES:
                    told = f"[the stream has {len(known)} rules, and may have {MAX_RULES}]"
                    raise api_error("DIS.4200", told)
                owner = f"{call.project}/{stream.doc.name}".encode()
                try:
                    # Only while the stream is there: nobody would take away the rules of a deleted one.
                    await self._catalog.transact(
                        {stream.key: stream.version}, {key: owner for key in sorted(wanted - known)}
                    )
                    break
                except CatalogConflict:
                    continue  # somebody changed the stream since: look again
        logger.info(
            "policy added: project=%s stream=%s id=%s action=%s", call.project, name, stream_id, request.action_type
        )
        return Response(status=201)

    async def listing(self, call: Call) -> Response:
        stream = await self._directory.find(call.project, *call.stream)
        stream_id = stream.doc.stream_id
        prefix = grants_of(stream_id)
        keys = sorted(
            key.removeprefix(prefix).split("/") for key, _ in await self._catalog.scan(prefix, limit=MAX_RULES)
        )
        body = encode_rules(stream_id, [_rule(*key) for key in keys])
        return json_response(body)


def _principals(text: str) -> list[tuple[str, str]]:
    """(domain, user or "*") of each name in a list with commas. Raises ApiError DIS.4200."""
    names = [name.strip() for name in text.split(",", MAX_PRINCIPALS)]
    names = [name for name in names if name]
    if not names or len(names) > MAX_PRINCIPALS:
        raise api_error("DIS.4200", f"[principal_name holds no name, or more than {MAX_PRINCIPALS}]")
    found = []
    for name in names:
        who = principal(name)
        if who is None:
            told = f"[principal_name: {name[:80]!r} is not domain.user, domain.* or domain, of A-Z a-z 0-9 _ - each]"
            raise api_error("DIS.4200", told)
        found.append(who)
    return found


def _rule(domain: str, user: str, action: str) -> PolicyRule:
    return PolicyRule(
        principal=f"{domain}.{user}",
        action=action,
        effect=EFFECT,
        principal_id=f"{identifier(domain)}.{'*' if user == '*' else identifier(domain, user)}",
    )
