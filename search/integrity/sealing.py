"""A hash in every record that is written, so that what changed on a disk is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

HASH = "hash"
DIGITS = 16


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record, of JSON values, with its hash in it.

    >>> sealed({"seed": 0})
    {'seed': 0, 'hash': 'de7d7744ccd7722e'}
    """
    return {**opened(record), HASH: content_hash(record)}


def opened(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without its hash."""
    return {key: value for key, value in record.items() if key != HASH}


def content_hash(record: Mapping[str, Any]) -> str:
    """The first digits of the SHA-256 of the record's JSON, keys in order, its hash left out."""
    text = json.dumps(opened(record), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def intact(record: Mapping[str, Any]) -> bool | None:
    """Whether the record is as it was written; None for one from before there were hashes."""
    return content_hash(record) == record[HASH] if HASH in record else None
