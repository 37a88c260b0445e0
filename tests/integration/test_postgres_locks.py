"""What a client of Postgres that stands still leaves locked, and for how long."""

import asyncio

from infra.config import Settings
from infra.postgres import TRANSACTION_SECONDS, connect


async def test_who_stands_still_in_a_pipeline_does_not_hold_its_locks(settings: Settings) -> None:
    """To the server it is busy, not idle: only the transaction's own limit ends it."""
    still = await connect(settings.database_url, autocommit=True)
    other = await connect(settings.database_url, autocommit=True)
    try:
        shown = await (await still.execute("SHOW transaction_timeout")).fetchone()
        assert shown == {"transaction_timeout": f"{TRANSACTION_SECONDS}s"}
        await still.execute("SET transaction_timeout = '2s'")
        await other.execute("CREATE TABLE held (n int); INSERT INTO held VALUES (1)")
        # The messages of a pipeline, the one that would end it not sent: as by a frozen process.
        still.pgconn.enter_pipeline_mode()
        for statement in (b"BEGIN", b"UPDATE held SET n = 2"):
            still.pgconn.send_query_params(statement, None)
        still.pgconn.send_flush_request()
        still.pgconn.flush()
        watched = "SELECT count(*) AS n FROM pg_locks WHERE relation = 'held'::regclass"
        async with asyncio.timeout(10):
            while await (await other.execute(watched)).fetchone() == {"n": 0}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await other.execute("UPDATE held SET n = 3")
        kept = await (await other.execute("SELECT n FROM held")).fetchone()
        assert kept == {"n": 3}
    finally:
        still.pgconn.finish()
        await other.close()
