"""The prompts views in memory: the real reducers, and the meaning of each query in Python.

That the SQL means the same is shown in `tests/integration/test_prompts.py`.
"""

import json
from typing import Any

from projections.prompts import VIEWS, prompts
from projections.prompts import playground_providers as providers
from projections.prompts import prompt_label_moves as moves
from projections.prompts import prompt_versions as versions
from tests.api.memory import MemoryReads
from tests.api.view_rows import Row, ViewRows

EVER = 2**63 - 1


class Tables(ViewRows):
    """The rows of the prompts views, asked by the views' own SQL."""

    def __init__(self) -> None:
        super().__init__(VIEWS)

    def answer(self, reads: MemoryReads) -> None:
        """Make `reads` answer the queries of the prompts views from here."""
        by_id = self.where("prompts", "tenant", "id")
        reads.when(prompts.BY_ID, lambda *key: [self._labelled(row) for row in by_id(*key)])
        reads.when(prompts.HEAD_OF, by_id)
        reads.when(prompts.ID_OF, self.where("prompts", "tenant", "name"))
        reads.when(prompts.COUNT, lambda *asked: [{"count": len(self._selected(*asked))}])
        reads.when(prompts.PAGE, lambda *asked: self._selected(*asked[:3])[asked[4] :][: asked[3]])
        reads.when(versions.PAGE, lambda *asked: self._versions(*asked[:2])[asked[3] :][: asked[2]])
        reads.when(versions.HASHES, lambda *key: self._versions(*key)[::-1])
        reads.when(versions.ONE, self._one)
        reads.when(versions.FETCH_VERSION, self._fetched)
        reads.when(
            versions.FETCH_LATEST, lambda *key: self._fetched(self._latest(*key, EVER), *key)
        )
        reads.when(
            versions.FETCH_LATEST_UNTIL,
            lambda at, _, *key: self._fetched(self._latest(*key, at), *key, at),
        )
        reads.when(
            versions.FETCH_LABEL,
            lambda label, *key: self._fetched(self._pointed(label, *key, EVER), *key),
        )
        reads.when(
            versions.FETCH_LABEL_UNTIL,
            lambda at, label, _, *key: self._fetched(self._pointed(label, *key, at), *key, at),
        )
        reads.when(providers.OF_TENANT, self.where("playground_providers", "tenant"))
        reads.when(moves.COUNT, lambda *key: [{"count": len(self._moves(*key))}])
        reads.when(moves.PAGE, lambda *asked: self._moves(*asked[:3])[asked[4] :][: asked[3]])
        reads.when(moves.LAST_UNTIL, lambda *asked: self._moves(*asked)[:1])

    def _labels(self, tenant: str, prompt_id: str, version: Any = None, at: int = EVER) -> Any:
        labels = {row["label"] for row in self.rows["prompt_label_moves"].values()}
        pointed = {
            label: found[0]["version"]
            for label in labels
            if (found := self._moves(tenant, prompt_id, label, at))
        }
        return sorted(
            label for label, to in pointed.items() if to is not None and version in (None, to)
        )

    def _labelled(self, row: Row) -> Row:
        return row | {"labels": self._labels(row["tenant"], row["id"])}

    def _selected(self, tenant: str, tags: str, search: str) -> list[Row]:
        found = [
            self._labelled(row)
            for row in self.rows["prompts"].values()
            if row["tenant"] == tenant
            and set(json.loads(tags)) <= set(row["tags"])
            and search.lower() in f"{row['name']}\n{row['description']}".lower()
        ]
        return sorted(found, key=lambda row: (row["created_at"], row["id"]), reverse=True)

    def _versions(self, tenant: str, prompt_id: str) -> list[Row]:
        found = [
            row | {"labels": self._labels(tenant, prompt_id, row["version"])}
            for row in self.where("prompt_versions", "tenant", "prompt_id")(tenant, prompt_id)
        ]
        return sorted(found, key=lambda row: -row["version"])

    def _one(self, tenant: str, prompt_id: str, version: int) -> list[Row]:
        heads = self.where("prompts", "tenant", "id")(tenant, prompt_id)
        return [
            row | {"name": head["name"], "prompt_type": head["prompt_type"]}
            for head in heads
            for row in self._versions(tenant, prompt_id)
            if row["version"] == version
        ]

    def _id(self, tenant: str, name: str) -> str:
        found = self.where("prompts", "tenant", "name")(tenant, name)
        return str(found[0]["id"]) if found else ""

    def _latest(self, tenant: str, name: str, at: int) -> int:
        found = self._versions(tenant, self._id(tenant, name))
        return max((row["version"] for row in found if row["created_at"] <= at), default=0)

    def _pointed(self, label: str, tenant: str, name: str, at: int) -> int:
        found = self._moves(tenant, self._id(tenant, name), label, at)
        return (found[0]["version"] if found else None) or 0

    def _fetched(self, version: int, tenant: str, name: str, at: int = EVER) -> list[Row]:
        prompt_id = self._id(tenant, name)
        labels = self._labels(tenant, prompt_id, version, at)
        return [row | {"labels": labels} for row in self._one(tenant, prompt_id, version)]

    def _moves(self, tenant: str, prompt_id: str, label: str, at: int = EVER) -> list[Row]:
        found = self.where("prompt_label_moves", "tenant", "prompt_id", "label")
        rows = [row for row in found(tenant, prompt_id, label) if row["moved_at"] <= at]
        return sorted(rows, key=lambda row: -row["number"])
