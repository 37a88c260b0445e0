"""Webhooks on real servers: signed, in order, at least once, whatever the receiver does."""

from infra.config import Settings
from tests.integration.webhook_rig import answer, delivering, hooked


async def test_a_signal_reaches_the_watchers_it_matches_signed_and_once(
    settings: Settings,
) -> None:
    async with hooked(settings) as it, delivering(it.settings):
        url, other = it.receiver.endpoint(), it.receiver.endpoint()
        watcher = await it.watch(url, filter={"payload.env": ["prod", "staging"]})
        await it.watch(other, filter={"type": "nothing"})
        await it.signal("deploy", env="dev")
        signal = await it.signal("deploy", env="prod")
        (received,) = await it.receiver.until(url, 1)
        body = received.verified(watcher["webhook_secret"])
        assert (body["type"], body["data"]["signal_id"]) == ("signal.broadcast", signal)
        assert body["data"]["payload"] == {"env": "prod"}
        (delivery,) = await it.until_statuses(watcher["id"], ["delivered"])
        assert delivery["event_id"] == received.id
        assert [one["status_code"] for one in delivery["attempts"]] == [204]
        assert (await it.watcher(watcher["id"]))["last_event_id"] == received.id
        assert it.receiver.at(other) == []
        assert len(it.receiver.at(url)) == 1


async def test_what_fails_is_tried_again_before_what_came_later(settings: Settings) -> None:
    async with hooked(settings) as it, delivering(it.settings):
        url, healthy = (
            it.receiver.endpoint(answer(500, b"broken"), answer(204)),
            (it.receiver.endpoint()),
        )
        watcher = await it.watch(url)
        await it.watch(healthy)
        for name in ("one", "two", "three"):
            await it.signal(name)
        await it.receiver.until(healthy, 3)
        assert len(it.receiver.at(url)) == 1  # five seconds are not over yet
        got = await it.receiver.until(url, 4)
        names = [one.verified(watcher["webhook_secret"])["data"]["type"] for one in got]
        assert names == ["one", "one", "two", "three"]
        assert got[0].id == got[1].id
        first, *_ = await it.until_statuses(watcher["id"], ["delivered"] * 3)
        tried = [(one["outcome"], one["status_code"], one["response"]) for one in first["attempts"]]
        assert tried == [("failed", 500, "broken"), ("delivered", 204, "")]
