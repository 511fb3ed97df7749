"""A group whose answers a test gives, in the place of the real one behind every server of the test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from disstream.server.groups import Groups

FenceCall = tuple[str, str, str, int, str, int]


class FakeGroups:
    """`reading`: a live member. `fence` notes each question and answers what `expect` says, or raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reading = False
        self.fences: list[FenceCall] = []
        self.expect: dict[str, int] = {}
        self.refuse: Exception | None = None
        self.before_answer: Callable[[], Awaitable[object]] | None = None

        async def in_use(_: Groups, project: str, app: str) -> bool:
            answer = self.reading
            if self.before_answer is not None:
                meanwhile, self.before_answer = self.before_answer, None
                await meanwhile()
            return answer

        async def fence(
            _: Groups, project: str, app: str, member_id: str, generation: int, stream_id: str, partition: int
        ) -> dict[str, int]:
            self.fences.append((project, app, member_id, generation, stream_id, partition))
            if self.refuse is not None:
                raise self.refuse
            return self.expect

        monkeypatch.setattr(Groups, "in_use", in_use)
        monkeypatch.setattr(Groups, "fence", fence)
