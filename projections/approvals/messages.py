"""`messages`: one row for each message of a thread, in the order of its number."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Put, Statement, View
from schemas.approvals.thread import MessagePosted
from schemas.envelope import Envelope


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    match event:
        case MessagePosted():
            values = {name: getattr(event, name) for name in event.__struct_fields__}
            key = {
                "tenant": envelope.tenant,
                "check_in_id": envelope.stream_id,
                "number": values.pop("number"),
            }
            return [Put(key, values)]
    return []


MESSAGES = View(
    name="messages",
    version=1,
    events=(MessagePosted,),
    columns={
        "tenant": "text",
        "check_in_id": "text",
        "number": "integer",
        "room_id": "text",
        "message_id": "text",
        "author_kind": "text",
        "author_id": "text",
        "author_name": "text",
        "body": "text",
        "message_type": "text",
        "metadata": "text",  # canonical JSON
        "attachments": "text",  # canonical JSON
        "posted_at": "bigint",
    },
    key=("tenant", "check_in_id", "number"),
    reduce=reduce,
)

# Oldest first. Parameters: tenant, check-in or task, the number of the last message seen, limit.
PAGE = f"""
SELECT check_in_id, number, message_id, author_kind, author_id, author_name, body, message_type,
       metadata, attachments, posted_at
FROM {MESSAGES.table}
WHERE tenant = %s AND check_in_id = %s AND number > %s ORDER BY number LIMIT %s
"""
