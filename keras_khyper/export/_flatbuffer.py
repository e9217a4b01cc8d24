"""Writing FlatBuffers tables without generated code."""

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np

# What stands in a slot of a table: nothing, a scalar, text, a vector, a table.
Field = Any
_PREPEND = {
    np.dtype("int8"): flatbuffers.Builder.PrependInt8Slot,
    np.dtype("uint8"): flatbuffers.Builder.PrependUint8Slot,
    np.dtype("uint32"): flatbuffers.Builder.PrependUint32Slot,
}


class AligningBuilder(flatbuffers.Builder):
    """Align vectors of bytes to 16.

    TFLite's schema asks for it (`Buffer.data`, `force_align: 16`), since weights are
    read where they lie; Python's generated code does not do it.
    """

    def StartVector(self, elemSize, numElems, alignment):  # noqa: D102
        return super().StartVector(
            elemSize, numElems, 16 if elemSize == 1 else alignment
        )


def serialize(fields: Sequence[Field], file_identifier: bytes) -> bytes:
    """Return a table as a FlatBuffer.

    Args:
        fields: the table's fields in the order of its schema, trailing ones may be
            missing. None is left out; a NumPy scalar (int8, uint8, uint32) is one of
            the schema's scalars and left out if zero; a str is a string, a NumPy array
            a vector of numbers, a list a vector of strings or tables, a tuple a table.
            A union takes two fields: its type (uint8) and its table.
        file_identifier: four bytes.
    """
    builder = flatbuffers.Builder()
    builder.Finish(_write_table(builder, fields), file_identifier)
    return bytes(builder.Output())


def _write_table(builder: flatbuffers.Builder, fields: Sequence[Field]) -> int:
    values = [_write(builder, field) for field in fields]  # children come first
    builder.StartObject(len(fields))
    for slot, value in enumerate(values):
        if isinstance(value, np.generic):
            _PREPEND[value.dtype](builder, slot, value.item(), 0)
        elif value is not None:
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
    return builder.EndObject()


def _write(builder: flatbuffers.Builder, field: Field) -> Any:
    """Return the field's offset; None and scalars stand in the table as they are."""
    if field is None or isinstance(field, np.generic):
        return field
    if isinstance(field, str):
        return builder.CreateString(field)
    if isinstance(field, tuple):
        return _write_table(builder, field)
    if isinstance(field, np.ndarray):
        return builder.CreateNumpyVector(field)
    offsets = [_write(builder, item) for item in field]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()
