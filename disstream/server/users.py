"""Who may sign in: projects, users and their access keys, as configured. Pure; nothing changes once a server runs.

A project belongs to a domain (an account), and so does a user, who may use projects of that domain only. What other
domains may do with a stream is said by its policies. Nothing here shows a secret in its `repr`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..errors import ConfigError
from .documents import NAME
from .rights import EVERYTHING, allowed_operations

MAX_ACCESS_KEYS = 2
"""Of one user: the service's own limit. Two, so that a key can be replaced while the old one still works."""

# No dot in a domain, or `domain.user` could be read in two ways; no separator of the catalog's keys, of lists or `*`.
_DOMAIN = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_PROJECT_NAME = re.compile(r"[ -~]{1,64}", re.ASCII)
_KEY = re.compile(r"[!-~]{1,2048}", re.ASCII)
_AK = re.compile(r"[A-Za-z0-9_.-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """`id` is the path segment, `name` what a token request may ask by. Raises ConfigError."""

    id: str
    name: str
    domain: str

    def __post_init__(self) -> None:
        _check("project id", self.id, NAME, "1 to 64 of A-Z a-z 0-9 _ -")
        _check("project name", self.name, _PROJECT_NAME, "1 to 64 printable characters")
        _check("domain", self.domain, _DOMAIN, "1 to 64 of A-Z a-z 0-9 _ -")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserKey:
    """An access key. With `security_token` it is a temporary one: requests must carry that, too. Raises ConfigError."""

    ak: str
    sk: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not _AK.fullmatch(self.ak):  # not shown: it may be a secret that stands in the wrong place
            raise ConfigError("an access key (ak) must be 1 to 128 of A-Z a-z 0-9 _ . -")
        for name, value in (("secret key", self.sk), ("security token", self.security_token)):
            if value is not None and not _KEY.fullmatch(value):
                raise ConfigError(f"the {name} of access key {self.ak} must be printable ASCII without blanks")


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """`projects` are ids; `actions` are patterns of what it may do in them (rights.py). Raises ConfigError."""

    name: str
    domain: str
    projects: tuple[str, ...]
    password: str | None = field(default=None, repr=False)
    access_keys: tuple[UserKey, ...] = ()
    actions: tuple[str, ...] = (EVERYTHING,)
    operations: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check("user name", self.name, _USER, "1 to 64 of A-Z a-z 0-9 _ . -")
        _check("domain", self.domain, _DOMAIN, "1 to 64 of A-Z a-z 0-9 _ -")
        if self.password == "":
            raise ConfigError(f"user {self} has an empty password: give one, or leave it out")
        if self.password is None and not self.access_keys:
            raise ConfigError(f"user {self} has neither a password nor an access key, so nobody could sign in as it")
        if len(self.access_keys) > MAX_ACCESS_KEYS:
            raise ConfigError(f"user {self} has {len(self.access_keys)} access keys, more than {MAX_ACCESS_KEYS}")
        if not self.projects:
            raise ConfigError(f"user {self} has no project: name at least one in its projects")
        try:
            operations = allowed_operations(self.actions)
        except ConfigError as exc:
            raise ConfigError(f"user {self}: {exc}") from exc
        object.__setattr__(self, "operations", operations)

    def __str__(self) -> str:
        return f"{self.domain}.{self.name}"


class Users:
    """Everybody who may sign in, found by name or by access key. Raises ConfigError for what contradicts itself."""

    def __init__(self, projects: Iterable[Project] = (), users: Iterable[User] = ()) -> None:
        self.projects: dict[str, Project] = {}
        self.by_name: dict[tuple[str, str], User] = {}
        self.by_key: dict[str, tuple[User, UserKey]] = {}
        self._project_names: dict[tuple[str, str], Project] = {}
        for project in projects:
            self.add_project(project)
        for user in users:
            self.add(user)

    def add_project(self, project: Project) -> None:
        if self.projects.setdefault(project.id, project) is not project:
            raise ConfigError(f"project {project.id} is given twice")
        other = self._project_names.setdefault((project.domain, project.name), project)
        if other is not project:
            raise ConfigError(
                f"projects {other.id} and {project.id} of domain {project.domain} have the same name "
                f"{project.name!r}: a token could not be asked for by it"
            )

    def add(self, user: User) -> None:
        """Its projects come first."""
        if self.by_name.setdefault((user.domain, user.name), user) is not user:
            raise ConfigError(f"user {user} is given twice")
        for project_id in user.projects:
            self._check_project(user, project_id)
        for key in user.access_keys:
            holder, known = self.by_key.setdefault(key.ak, (user, key))
            if known is not key:
                raise ConfigError(f"access key {key.ak} is given twice: to user {holder} and to user {user}")

    def _check_project(self, user: User, project_id: str) -> None:
        project = self.projects.get(project_id)
        if project is None:
            raise ConfigError(f"user {user} is in project {project_id[:80]!r}, which is not among the projects")
        if project.domain != user.domain:
            raise ConfigError(
                f"user {user} is in project {project_id}, which is of domain {project.domain}: "
                "share single streams by policies instead"
            )

    def __repr__(self) -> str:
        return f"Users({len(self.by_name)} users in {len(self.projects)} projects)"

    def project_named(self, user: User, name: str) -> Project | None:
        """The user's project of that name."""
        project = self._project_names.get((user.domain, name))
        return project if project is not None and project.id in user.projects else None

    def projects_of(self, user: User) -> list[Project]:
        """In the order they were given for the user."""
        return [self.projects[project_id] for project_id in dict.fromkeys(user.projects)]


def identifier(*names: str) -> str:
    """The id under which a domain, or a user of one, shows in answers: as long as the service's, always the same."""
    return hashlib.sha256("/".join(names).encode()).hexdigest()[:32]


def principal(text: str) -> tuple[str, str] | None:
    """(domain, user or "*") of `domain.user`, `domain.*` or a bare `domain`; None for what can be none of them."""
    domain, _, user = text.partition(".")
    if "." not in text:
        user = "*"
    if not (_DOMAIN.fullmatch(domain) and (user == "*" or _USER.fullmatch(user))):
        return None
    return domain, user


def _check(what: str, value: str, pattern: re.Pattern[str], wanted: str) -> None:
    if not pattern.fullmatch(value):
        raise ConfigError(f"{what} {value[:80]!r} cannot be used: give {wanted}")
