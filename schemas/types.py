"""Field types shared by events and commands.

Avro does not validate (fastavro writes 1.7 into a long as 1), and Postgres would refuse a NUL only
after the event is on the log: so the types refuse such values where a body is decoded.
"""

from typing import Annotated

from msgspec import Meta

# Text that Postgres can hold: no NUL.
Text = Annotated[str, Meta(pattern=r"^[^\x00]*$")]
# A JSON document as text. Decoded at the edge, stored and forwarded verbatim, never re-parsed.
Json = Annotated[str, Meta(description="a JSON document as text")]
# Microseconds since 1970-01-01T00:00:00Z.
Micros = Annotated[int, Meta(ge=0, le=253_402_300_799_999_999)]
# A whole number that fits a signed 64-bit integer.
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
# A count that fits a signed 64-bit integer.
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]

EMPTY_JSON = "{}"
