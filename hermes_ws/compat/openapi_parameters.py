"""Parameters that lists have in common, for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated

import msgspec

from hermes_ws.compat.openapi import Parameter

__all__ = ["Count", "Cursor", "page_limit"]

Count = Annotated[int, msgspec.Meta(ge=0, le=10**15 - 1)]
"""A number from 0, as far as one is read."""
Cursor = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,18}-")]
"""The place in a list, as ``next`` of a page names it."""


def page_limit(what: str) -> Parameter:
    """How long a page is to be."""
    about = f"Most {what} in the page; what is more than the server's own limit is that."
    return Parameter(name="limit", where="query", type=Count, about=about, empty=True)
