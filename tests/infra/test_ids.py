"""What derives from the master secret: stable over releases, and of no use to whoever lacks it."""

import time

import pytest

from infra.ids import SealBroken, Signer, made_at, new_id, person_of

MASTER = bytes(range(32))
SIGNER = Signer(MASTER)
RUN = SIGNER.run_id_for("ten_1", "nightly")


def test_what_is_derived_stays_the_same_over_releases() -> None:
    # Otherwise an upgrade would disown every run, key and token that was ever given out.
    assert RUN == "run_6zqbp7k5ejah1vrtp4mtpcgkvw1k6yg5gs7tdvf5qj"
    key = "wax_0kvdxw8p18efx00xnw5stfdsha36qna89bfms6egdby9bt993t19"
    assert SIGNER.secret("wax_", "cmd_1") == key
    jwt = "e54ac0a74665b3f9fea9ea0d67034a6fbd73f3b6c0f8926dea352fa8f76a6803"
    assert SIGNER.jwt_key.hex() == jwt


def test_another_master_secret_derives_nothing_alike() -> None:
    other = Signer(MASTER[::-1])
    assert other.run_id_for("ten_1", "nightly") != RUN
    assert not other.owns_run("ten_1", RUN)
    assert other.secret("wax_", "cmd_1") != SIGNER.secret("wax_", "cmd_1")
    assert other.jwt_key != SIGNER.jwt_key
    assert other.request(b"a") != SIGNER.request(b"a")


def test_a_request_is_known_by_each_of_its_parts() -> None:
    found = {
        SIGNER.request(*parts) for parts in ([b"ab", b""], [b"a", b"b"], [b"ab"], [b"b", b"a"])
    }
    assert len(found) == 4
    assert SIGNER.request(b"a", b"b") == SIGNER.request(b"a", b"b")


def test_a_secret_belongs_to_its_command_and_its_kind() -> None:
    found = {SIGNER.secret(prefix, id)[4:] for prefix in ("wax_", "agt_") for id in ("c1", "c2")}
    assert len(found) == 4
    assert SIGNER.jwt_key != MASTER


def test_a_run_is_its_tenant_s_whoever_asks_first() -> None:
    signer = Signer(MASTER)
    assert not signer.owns_run("ten_2", RUN)
    assert signer.owns_run("ten_1", RUN)
    # Proven once, it is remembered: still nobody else's.
    assert not signer.owns_run("ten_2", RUN)
    assert signer.owns_run("ten_1", signer.run_id("ten_1"))


@pytest.mark.parametrize("place", [4, 29, 30, 45])
def test_a_run_id_with_one_character_changed_is_nobody_s(place: int) -> None:
    changed = RUN[:place] + ("0" if RUN[place] != "0" else "1") + RUN[place + 1 :]
    assert not Signer(MASTER).owns_run("ten_1", changed)


@pytest.mark.parametrize(
    "run_id", ["", "run_", RUN[:-1], RUN + "0", RUN.upper(), "x" * 46, "run_" + "é" * 42]
)
def test_what_is_no_run_id_is_nobody_s(run_id: str) -> None:
    assert not Signer(MASTER).owns_run("ten_1", run_id)


def test_a_run_of_a_person_says_whose_it_is_and_not_who() -> None:
    person = SIGNER.person("ten_1", "ada@example.com")
    assert person == "person_515agfymsfkjg9jg"
    assert person == Signer(MASTER).person("ten_1", "ada@example.com")
    run_id = SIGNER.run_id("ten_1", person=person)
    assert len(run_id) == 62
    assert person_of(run_id) == person
    assert person_of(RUN) == ""
    assert Signer(MASTER).owns_run("ten_1", run_id)
    assert not Signer(MASTER).owns_run("ten_2", run_id)
    others = {SIGNER.person("ten_2", "ada@example.com"), SIGNER.person("ten_1", "ada@example.org")}
    assert person not in others
    assert len(others) == 2


@pytest.mark.parametrize("place", [4, 30, 45, 46, 61])
def test_a_run_cannot_be_made_another_person_s(place: int) -> None:
    run_id = SIGNER.run_id("ten_1", person=SIGNER.person("ten_1", "ada"))
    changed = run_id[:place] + ("0" if run_id[place] != "0" else "1") + run_id[place + 1 :]
    assert not Signer(MASTER).owns_run("ten_1", changed)
    # Nor nobody's: the MAC of the long id is not that of the short one.
    assert not Signer(MASTER).owns_run("ten_1", run_id[:30] + run_id[46:])


def test_a_short_master_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Signer(MASTER[:-1])


def test_a_sealed_secret_opens_where_it_belongs_and_nowhere_else() -> None:
    sealed = SIGNER.seal("sk-very-secret", "provider", "ten_1")
    assert "secret" not in sealed
    assert Signer(MASTER).unseal(sealed, "provider", "ten_1") == "sk-very-secret"
    others = [
        (SIGNER, sealed, ("provider", "ten_2")),
        (SIGNER, sealed, ("provider",)),
        (SIGNER, sealed, ("providerten_1",)),
        (SIGNER, sealed, ("ten_1", "provider")),
        (Signer(MASTER[::-1]), sealed, ("provider", "ten_1")),
        (SIGNER, sealed[:-4], ("provider", "ten_1")),
        (SIGNER, ("A" if sealed[0] != "A" else "B") + sealed[1:], ("provider", "ten_1")),
        (SIGNER, "no base64!", ("provider", "ten_1")),
        (SIGNER, "", ("provider", "ten_1")),
    ]
    for signer, text, context in others:
        with pytest.raises(SealBroken):
            signer.unseal(text, *context)


def test_the_same_secret_is_the_same_seal_in_its_context_only() -> None:
    # Otherwise a repeat could not be told from a change.
    assert SIGNER.seal("k", "a", "b") == Signer(MASTER).seal("k", "a", "b")
    assert SIGNER.seal("k", "a", "b") != SIGNER.seal("k", "a", "c")
    # And otherwise an upgrade would lose what is kept.
    sealed = "wINpO-g6c7Cj2O-KcU6BbUeJOBa5lK3SuXaSfm9x"
    assert SIGNER.seal("sk-very-secret", "provider", "ten_1") == sealed


def test_a_run_id_says_when_it_was_made_unless_it_derives_from_something() -> None:
    before = time.time_ns() // 1_000_000
    found = made_at(SIGNER.run_id("ten_1"))
    assert found is not None
    assert before <= found <= time.time_ns() // 1_000_000
    assert made_at(SIGNER.run_id("ten_1", person=SIGNER.person("ten_1", "ada"))) is not None
    assert made_at(SIGNER.run_id("ten_1", new_id("cmd"))) is not None
    assert made_at(SIGNER.run_id_for("ten_1", "a trace")) is None
    assert made_at("run_1") is None
    assert made_at("run_" + "o" * 10 + "e" + "0" * 31) is None
