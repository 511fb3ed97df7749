"""The two calls of IAM, and the document itself, for the document (API 1.3, 1.5). Pure."""

from __future__ import annotations

from .parts import Answer, Body, Operation, Parameter, Schema, flag, many, number, record, ref, text

_LINKS = record({"self": text()}, {"next": {"type": ["string", "null"]}, "previous": {"type": ["string", "null"]}})
_OWNED = record({"id": text(), "name": text(), "domain": ref("Named")})

SCHEMAS: dict[str, Schema] = {
    "Named": record({"id": text(), "name": text()}),
    "TokenRequest": record(
        {
            "auth": record(
                {
                    "identity": record(
                        {
                            "methods": many({"const": "password"}, minItems=1, maxItems=1),
                            "password": record(
                                {
                                    "user": record(
                                        {
                                            "name": text(minLength=1),
                                            "password": text(minLength=1, format="password"),
                                            "domain": record({"name": text(minLength=1)}),
                                        }
                                    )
                                }
                            ),
                        }
                    ),
                    "scope": record({"project": record({}, {"id": text(), "name": text()}, "By id or by name.")}),
                }
            )
        }
    ),
    "TokenAnswer": record(
        {
            "token": record(
                {
                    "expires_at": text(format="date-time"),
                    "issued_at": text(format="date-time"),
                    "methods": many(text()),
                    "catalog": many({}),
                    "roles": many({}),
                    "project": _OWNED,
                    "user": record({**_OWNED["properties"], "password_expires_at": text()}),
                }
            )
        }
    ),
    "Projects": record({"projects": many(ref("Project")), "links": _LINKS}),
    "Project": record(
        {
            "id": text(),
            "name": text("That of the region, unless somebody made the project."),
            "domain_id": text(),
            "parent_id": text(),
            "is_domain": flag(),
            "enabled": flag(),
            "description": text(),
            "links": _LINKS,
        }
    ),
    "IamError": record({"error": record({"code": number("The status."), "message": text(), "title": text()})}),
}

_ID = "65382450e8f64ac0870cd180d14e684b"

OPERATIONS: dict[str, Operation] = {
    "create_token": Operation(
        "IAM",
        "Get a token for a password",
        {
            201: Answer(
                "The token stands in a header.",
                "TokenAnswer",
                {
                    "token": {
                        "expires_at": "2026-01-02T06:52:13.855000Z",
                        "issued_at": "2026-01-01T06:52:13.855000Z",
                        "methods": ["password"],
                        "catalog": [],
                        "roles": [],
                        "project": {"id": "p1", "name": "region", "domain": {"id": _ID, "name": "domainname"}},
                        "user": {
                            "id": _ID,
                            "name": "username",
                            "domain": {"id": _ID, "name": "domainname"},
                            "password_expires_at": "",
                        },
                    }
                },
                headers={"X-Subject-Token": text("The token, for X-Auth-Token.", minLength=1)},
            )
        },
        body=Body(
            "TokenRequest",
            {
                "password": {
                    "auth": {
                        "identity": {
                            "methods": ["password"],
                            "password": {
                                "user": {
                                    "name": "username",
                                    "password": "a password",
                                    "domain": {"name": "domainname"},
                                }
                            },
                        },
                        "scope": {"project": {"id": "p1"}},
                    }
                }
            },
        ),
    ),
    "list_projects": Operation(
        "IAM",
        "List the projects of the user",
        {200: Answer("All of them, or those of the name.", "Projects", {"projects": [], "links": {"self": "/"}})},
        query={"name": Parameter(text("Only the project of this name."))},
    ),
    "openapi": Operation(
        "Server",
        "This document",
        {200: Answer("The document.", "Document")},
    ),
}
SCHEMAS["Document"] = record({"openapi": text(), "info": {"type": "object"}, "paths": {"type": "object"}})
