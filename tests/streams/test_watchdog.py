"""The watchdog ends what is stuck, and nothing else."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from streams.watchdog import Watchdog

ROOT = Path(__file__).resolve().parents[2]


class Ended:
    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.happened = threading.Event()

    def __call__(self, reason: str) -> None:
        self.reasons.append(reason)
        self.happened.set()


def watchdog(ended: Ended, answers: list[object], blocked: float = 60.0) -> Watchdog:
    """Gives the answers in turn, the last one for ever; an exception is raised."""

    async def pending() -> Mapping[str, int]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]

    return Watchdog(
        pending,
        away=(OSError,),
        stuck_seconds=0.05,
        check_seconds=0.01,
        blocked_seconds=blocked,
        end=ended,
    )


async def watch(dog: Watchdog, ended: Ended, seconds: float) -> None:
    task = asyncio.create_task(dog.run())
    await asyncio.to_thread(ended.happened.wait, seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_same_thing_pending_for_too_long_ends_the_process() -> None:
    ended = Ended()
    await watch(watchdog(ended, [{"p": 7}]), ended, 10)
    assert "('p', 7)" in ended.reasons[0]


async def test_what_moves_is_not_stuck() -> None:
    ended = Ended()
    await watch(watchdog(ended, [{"p": offset} for offset in range(1000)]), ended, 0.4)
    assert ended.reasons == []


async def test_nothing_to_do_or_a_server_that_is_away_is_not_stuck() -> None:
    ended = Ended()
    answers: list[object] = [{"p": 7}, {}, {"p": 7}, OSError("away")] * 200
    await watch(watchdog(ended, answers), ended, 0.4)
    assert ended.reasons == []


async def test_a_question_that_fails_again_and_again_is_a_bug_and_ends_the_process() -> None:
    ended = Ended()
    await watch(watchdog(ended, [AttributeError("broken")]), ended, 10)
    assert "broken" in ended.reasons[0]


async def test_a_blocked_loop_is_found_by_the_thread_beside_it() -> None:
    ended = Ended()
    task = asyncio.create_task(watchdog(ended, [{}], blocked=0.1).run())
    await asyncio.sleep(0)
    # The loop does nothing else meanwhile, as if some code had run away with it.
    assert ended.happened.wait(10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert "has not come to its turn" in ended.reasons[0]


def test_the_end_shows_where_everything_stands_and_tells_it_by_its_status() -> None:
    code = """
import asyncio
from streams.watchdog import Watchdog

async def pending():
    return {"p": 7}

async def waits_for_nothing():
    await asyncio.Event().wait()

async def main():
    task = asyncio.create_task(waits_for_nothing())
    await Watchdog(pending, stuck_seconds=0.02, check_seconds=0.01).run()

asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 70
    assert "nothing moves although there is work" in ended.stderr
    assert "waits_for_nothing" in ended.stderr
