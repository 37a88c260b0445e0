"""The AsyncAPI document is served."""

from schemas.topics import topics
from tests.api.harness import Harness


async def test_it_names_every_topic() -> None:
    async with Harness() as app:
        answer = await app.client.get("/asyncapi.json")
        assert answer.status_code == 200
        assert answer.json()["asyncapi"] == "3.0.0"
        assert set(answer.json()["channels"]) == set(topics())
        assert (await app.client.get("/asyncapi.json")).content == answer.content
