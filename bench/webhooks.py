"""From a decision to its webhook: `python -m bench.webhooks [SECONDS]`.

A person broadcasts a signal over HTTP; one watcher matches it, and its receiver, a plain server in
this process, gets the POST. Between the two: the decision, the fan-out, the decision that triggers,
the sender, and the signature. Timed from the answer to the person until the POST is there, and in
all; the bare counterpart is the POST alone, by the same client to the same receiver. All sides run
in this process.
"""

import asyncio
import sys
import time

import uvloop

from bench.arrival import Arrival
from bench.figure import Figure, Timed, timed, timed_of
from bench.servers import servers
from infra.clock import SYSTEM_CLOCK
from infra.config import Settings
from infra.ids import Signer
from infra.memory import tune_collector
from streams.platform.webhook_client import WebhookClient
from tests.integration.webhook_rig import OUR_NETWORK, Hooked, answer, delivering, hooked

IN_FLIGHT = (1, 32)


class Flight:
    """A watcher of its own, so that its webhooks are told from those of others in flight."""

    def __init__(self, it: Hooked, number: int) -> None:
        self._it, self._name = it, f"flight-{number}"
        self._arrival = Arrival()
        self._url = it.receiver.endpoint(self._arrival.told(answer(204)))
        self.after_answer: list[float] = []
        self.in_all: list[float] = []

    async def begin(self) -> None:
        """Make the watcher."""
        await self._it.watch(self._url, filter={"type": self._name})

    async def run(self, seconds: float) -> None:
        """Signal, and wait for the webhook, one after the other."""
        ends = time.perf_counter() + seconds
        while (start := time.perf_counter()) < ends:
            self._arrival.expect()
            await self._it.signal(self._name)
            answered = time.perf_counter()
            await self._arrival.wait()
            self.after_answer.append(max(0.0, self._arrival.at - answered))
            self.in_all.append(self._arrival.at - start)


async def run(settings: Settings, seconds: float) -> list[Figure]:
    """Measure both sides, `seconds` for each load."""
    figures = []
    async with hooked(settings) as it, delivering(it.settings):
        client = WebhookClient(Signer(it.settings.secret_key), OUR_NETWORK, SYSTEM_CLOCK)
        url = it.receiver.endpoint()

        async def post() -> None:
            assert (await client.post(url, ["seed"], "evt_1", "{}")).delivered

        flights = [Flight(it, number) for number in range(max(IN_FLIGHT))]
        for flight in flights:
            await flight.begin()
        await flights[0].run(2)
        for in_flight in IN_FLIGHT:
            bare = await timed(post, in_flight, seconds)
            flown = flights[:in_flight]
            for flight in flown:
                flight.after_answer.clear()
                flight.in_all.clear()
            began = time.perf_counter()
            await asyncio.gather(*(flight.run(seconds) for flight in flown))
            took = time.perf_counter() - began
            for name, spent in (
                ("decision to webhook", [each for one in flown for each in one.after_answer]),
                ("signal request to webhook", [each for one in flown for each in one.in_all]),
            ):
                figures.append(_figure(f"{name}, {in_flight} in flight", bare, spent, took))
                print(figures[-1].line(), flush=True)
        await client.stop()
    return figures


def _figure(name: str, bare: Timed, spent: list[float], took: float) -> Figure:
    return Figure(name=name, bare=str(bare), ours=str(timed_of(spent, took)))


def figures(seconds: float) -> list[Figure]:
    """Everything this module measures, on a stack of its own."""
    tune_collector()  # as every role does
    with servers() as settings:
        return uvloop.run(run(settings, seconds))


if __name__ == "__main__":
    figures(float(sys.argv[1]) if len(sys.argv) > 1 else 4.0)
