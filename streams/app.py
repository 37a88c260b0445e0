"""The Faust app: processors of what is soft and can be rebuilt from the log.

Each module in `PROCESSORS` attaches its agents with `attach(app, …)`. Faust 0.15.3 needs care here:
its consumers read aborted records of transactional topics unless told otherwise (`read_committed`),
`exactly_once` loses its fencing on a rebalance, tables can hang in recovery, and an agent with
concurrency above 1 commits past events that are unfinished. So: no tables, no transactions,
concurrency 1, and a processor's state and its offset live in Postgres, in one transaction.
"""

from pathlib import Path
from typing import Any

import faust
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

from streams.billing import agent as usage_agent
from streams.billing.meter import UsageMeter

PROCESSORS = (usage_agent,)
FAUST_VERSION = "0.15.3"
GROUP = "streams.v1"


def read_committed() -> None:
    """Make Faust's consumers skip what was aborted. Raises RuntimeError on another Faust."""
    if faust.__version__ != FAUST_VERSION:
        raise RuntimeError(
            f"Faust {faust.__version__} is not the {FAUST_VERSION} whose consumer this patches: "
            "see whether it is still needed, and run tests/streams/test_app.py"
        )
    create = AIOKafkaConsumerThread._create_worker_consumer
    if getattr(create, "reads_committed", False):
        return

    def create_reading_committed(thread: Any, transport: Any) -> Any:
        created = create(thread, transport)
        # Read when the consumer starts, which is later.
        created._isolation_level = "read_committed"
        return created

    create_reading_committed.reads_committed = True  # type: ignore[attr-defined]
    AIOKafkaConsumerThread._create_worker_consumer = create_reading_committed


def make_app(bootstrap: str, folder: Path, group: str = GROUP) -> Any:
    """An app without agents. `folder` is for Faust's files, of which nothing needs to be kept."""
    read_committed()
    return faust.App(
        group,
        broker=[f"kafka://{address}" for address in bootstrap.split(",")],
        datadir=folder,
        store="memory://",
        web_enabled=False,
        processing_guarantee="at_least_once",
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        # Heartbeats come from Faust's consumer thread, so a busy loop does not cost the membership,
        # and after a `kill -9` the partitions are free within seconds.
        broker_session_timeout=10.0,
        broker_heartbeat_interval=3.0,
        broker_rebalance_timeout=20.0,
        broker_commit_interval=2.0,
        stream_buffer_maxsize=4096,
        stream_wait_empty=False,
    )


def build(bootstrap: str, folder: Path, meter: UsageMeter, group: str = GROUP) -> Any:
    """The app with every processor's agents."""
    app = make_app(bootstrap, folder, group)
    usage_agent.attach(app, meter)
    return app
