"""How requests and profiles of one user are ordered."""

from __future__ import annotations

from typing import NamedTuple

from models.schemas import Profile, ProfileRequest


class ProfileVersion(NamedTuple):
    """What a profile takes into account; a later tuple is the newer one."""

    applied_offset: int
    edits_offset: int
    number: int

    @classmethod
    def of_request(cls, request: ProfileRequest) -> ProfileVersion:
        """Marks of what is asked for."""
        return cls(request.applied_offset, request.edits_offset, request.number)

    @classmethod
    def of_profile(cls, profile: Profile) -> ProfileVersion:
        """Marks of what was written."""
        return cls(profile.applied_offset, profile.edits_offset, profile.version)


class RecordPosition(NamedTuple):
    """Where a record lies in its topic."""

    partition: int
    offset: int
