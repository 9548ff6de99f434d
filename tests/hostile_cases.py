"""What tests of hostile text share."""

from __future__ import annotations

import pytest

from search.errors import ExpressionError
from search.language.parser import parse


def refusal(text: object, place: str = "here") -> str:
    """The one line with which a text is refused."""
    with pytest.raises(ExpressionError) as caught:
        parse(text, place)  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.startswith(f"{place}: ")
    assert "\n" not in message and message.isprintable()
    assert len(message) < 400
    return message
