"""Bodies of the policy calls (API 5.1.7, 5.1.8)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ..model import PolicyRule
from .body import decode_answer, decode_body

ACTION_TYPES = ("putRecords", "getRecords", "getStreamInfo")
EFFECT = "accept"
"""The only one there is: policies allow, none denies."""


class AddPolicy(msgspec.Struct, kw_only=True):
    """A request as it stands on the wire. `principal_name`: one or several of `domain.user`, `domain.*`, `domain`."""

    stream_id: str | None = None
    principal_name: str
    action_type: str
    effect: str | None = None


class _Rule(msgspec.Struct, kw_only=True):
    principal: str | None = None
    principal_name: str | None = None
    action_type: str = ""
    effect: str = EFFECT


class _Rules(msgspec.Struct, kw_only=True):
    rules: list[_Rule] | None = None


_add_decoder = msgspec.json.Decoder(AddPolicy)
_rules_decoder = msgspec.json.Decoder(_Rules, strict=False)


def encode_add_policy(stream_id: str, principal: str, action: str) -> bytes:
    return msgspec.json.encode(
        AddPolicy(stream_id=stream_id, principal_name=principal, action_type=action, effect=EFFECT)
    )


def decode_add_policy(body: bytes) -> AddPolicy:
    """Raises ApiError: DIS.4300 not JSON, DIS.4200 wrong or missing field."""
    return decode_body(_add_decoder, body)


def encode_rules(stream_id: str, rules: Iterable[PolicyRule]) -> bytes:
    return msgspec.json.encode(
        {
            # One as the table of the reference spells it, one as its example does.
            "stream_id": stream_id,
            "streamId": stream_id,
            "rules": [
                _Rule(
                    principal=rule.principal_id,
                    principal_name=rule.principal,
                    action_type=rule.action,
                    effect=rule.effect,
                )
                for rule in rules
            ],
        }
    )


def decode_rules(body: bytes) -> list[PolicyRule]:
    """Names are taken as they come: the service does not always write `domain.user`."""
    return [
        PolicyRule(
            principal=rule.principal_name or rule.principal or "",
            action=rule.action_type,
            effect=rule.effect,
            principal_id=rule.principal or "",
        )
        for rule in decode_answer(_rules_decoder, body).rules or ()
    ]
