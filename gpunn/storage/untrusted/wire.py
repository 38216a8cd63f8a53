"""Count the messages inside a protobuf message before a parser makes objects of them.

A message of two bytes becomes an object of about 150. A file of 10 MB can so take 790 MB.
"""

from __future__ import annotations

from collections.abc import Mapping

Fields = Mapping[int, str]

MAX_DEPTH = 100  # as in protobuf's parsers


def check_messages(content: bytes, kinds: Mapping[str, Fields], root: str, limit: int) -> None:
    """Check that a protobuf message has at most so many parts.

    Only the messages that `kinds` names are entered. Texts, numbers and unknown messages are
    skipped, which costs as little as their length says.

    Args:
        content: the bytes.
        kinds: for each kind of message, the kinds of messages in its fields by their numbers.
        root: the kind of the whole.
        limit: the largest number of fields.

    Raises:
        ValueError: there are more, or the bytes are no message.
    """
    count, place, inside = 0, 0, [(len(content), kinds[root])]
    while inside:
        end, fields = inside[-1]
        if place == end:
            inside.pop()
            continue
        count += 1
        if count > limit or len(inside) > MAX_DEPTH:
            raise ValueError(f"it has more than {limit} parts, or {MAX_DEPTH} inside each other")
        key, place = _number(content, place, end)
        form = key & 7
        if form == 0:
            _, place = _number(content, place, end)
        elif form in (1, 5):
            place += 8 if form == 1 else 4
        elif form == 2:
            length, place = _number(content, place, end)
            if key >> 3 in fields and place + length <= end:
                inside.append((place + length, kinds[fields[key >> 3]]))
                continue
            place += length
        else:
            raise ValueError("it is no protobuf message")
        if place > end:
            raise ValueError("it is shorter than it says")


def _number(content: bytes, place: int, end: int) -> tuple[int, int]:
    """Return the number of variable length at a place, and the place behind it."""
    number = 0
    for k in range(10):
        if place + k >= end:
            break
        byte = content[place + k]
        number |= (byte & 127) << (7 * k)
        if byte < 128:
            return number, place + k + 1
    raise ValueError("it is no protobuf message")
