"""Decoding of label records (pure): fields with the names that a user declares, ids with the types of the event's."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, cast

import msgspec

from tailrace.declaration.event import Instant, Key, joined_id
from tailrace.declaration.label import check_label_fields
from tailrace.declaration.task import LabelValue
from tailrace.streams.log.codec import Codec, encode

MAX_LABEL_BYTES = 16_384
"""Longest label value, as JSON: examples repeat it."""
LABEL_ROOM = MAX_LABEL_BYTES + 1_024
"""Bytes that an example has more than its prediction, at most."""


class LabelRecord(msgspec.Struct, gc=False, kw_only=True):
    """A label on the wire, without its id fields; `time` in any form that an event time may have."""

    label: LabelValue
    time: Instant | None = None

    def key(self) -> str:
        """Return the id as text."""
        raise NotImplementedError


def label_codec(fields: Mapping[str, str], ids: Mapping[str, Any] | None = None) -> Codec[LabelRecord]:
    """Return a codec for label records with other field names: {"id": "flight_id", "label": "late"}.

    `ids`: their id fields with types, see `EventSchema.label_ids`. Raises DeclarationError for a field that they do not
    have.
    """
    ids = ids or {"id": Key}
    check_label_fields(fields, ids)
    get = attrgetter(*ids)
    if len(ids) == 1:

        def key(record: LabelRecord) -> str:
            return str(get(record))
    else:

        def key(record: LabelRecord) -> str:
            return joined_id(get(record))

    described: list[tuple[str, Any] | tuple[str, Any, Any]] = list(ids.items())
    # Fields that are only inherited would not be renamed.
    described += [("label", LabelValue), ("time", Instant | None, None)]
    kind = msgspec.defstruct(
        "LabelRecord",
        described,
        bases=(LabelRecord,),
        namespace={"key": key},
        rename=lambda name: fields.get(name, name),
        gc=False,
        kw_only=True,
    )
    return Codec(cast("type[LabelRecord]", kind))


def excess(label: LabelRecord) -> str:
    """Return why a label is too large to be copied; empty if it is not."""
    try:
        size = len(encode(label.label)) if isinstance(label.label, str | list | dict) else 0
    except OverflowError as error:  # an integer may have a thousand digits
        return str(error)
    return f"the label has {size:,} bytes, the limit is {MAX_LABEL_BYTES:,}" if size > MAX_LABEL_BYTES else ""
