"""Events of `approvals.thread`: what people and agents write about a check-in or a task."""

from typing import Literal

from msgspec import Struct

from schemas.approvals.vocabulary import MessageType
from schemas.types import Json, Micros, Text


class MessagePosted(Struct, frozen=True, tag="approvals.message_posted.v1"):
    """A message. number: its place in the thread, from 1 without a gap.

    metadata: a JSON object; attachments: a JSON array of objects.
    """

    room_id: str
    message_id: str
    number: int
    author_kind: Literal["user", "agent"]
    author_id: str
    author_name: Text
    body: Text
    message_type: MessageType
    metadata: Json
    attachments: Json
    posted_at: Micros


ThreadEvent = MessagePosted
