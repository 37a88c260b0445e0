"""A room: slugs are unique and made from names; policies are checked before they are kept."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.approvals.policy import DEFAULT_POLICIES
from commands.approvals.room import (
    DECIDER,
    SLUG,
    CreateRoom,
    ReplaceRoomPolicies,
    Room,
    RoomAnswered,
    RoomExists,
    RoomNotFound,
    SlugTaken,
    slug_of,
)
from commands.decider import Claim, Context, Lookup, Ref
from commands.identity.user import STREAM as USER
from commands.identity.user import User
from commands.refusals import InvalidCommand
from schemas.approvals.policies import Conditions, Policies, Rule, TextMatch
from schemas.approvals.room import RoomCreated, RoomPoliciesReplaced
from tests.given import HUMAN, NOW, Given

STRICT = msgspec.structs.replace(DEFAULT_POLICIES, default_action="forbid")
FAULTY = msgspec.structs.replace(DEFAULT_POLICIES, rules=[Rule("forbid", Conditions())])
ID = "room_0123456789abcdefghjkmnpq"


def opened(**fields: Any) -> RoomCreated:
    defaults = {
        "slug": "vendor-payments",
        "name": "Vendor Payments",
        "description": "",
        "policies": DEFAULT_POLICIES,
        "owner_id": "usr_1",
        "created_at": NOW,
    }
    return RoomCreated(**defaults | fields)


def test_a_room_is_created_with_a_slug_made_from_its_name() -> None:
    given = Given(DECIDER, id=ID).when(CreateRoom("Vendor Payments", DEFAULT_POLICIES))
    given.then(opened())


def test_a_room_takes_the_slug_it_is_given() -> None:
    command = CreateRoom("Vendor Payments", STRICT, slug="vp", description="Who pays whom")
    expected = opened(slug="vp", policies=STRICT, description="Who pays whom")
    Given(DECIDER, id=ID).when(command).then(expected)


def test_a_taken_slug_made_from_a_name_gets_a_suffix() -> None:
    given = Given(DECIDER, id=ID, found={(SLUG, "vendor-payments"): "room_9"})
    given.when(CreateRoom("Vendor Payments", DEFAULT_POLICIES))
    given.then(opened(slug="vendor-payments-ghjkmnpq"))


def test_a_taken_slug_that_was_asked_for_is_refused() -> None:
    given = Given(DECIDER, id=ID, found={(SLUG, "vp"): "room_9"})
    given.when(CreateRoom("Vendor Payments", DEFAULT_POLICIES, slug="vp"))
    assert given.then_refused(SlugTaken).details == {"field": "slug"}


def test_even_the_suffixed_slug_can_be_taken() -> None:
    found = {(SLUG, "vendor-payments"): "room_9", (SLUG, "vendor-payments-ghjkmnpq"): "room_8"}
    given = Given(DECIDER, id=ID, found=found)
    given.when(CreateRoom("Vendor Payments", DEFAULT_POLICIES)).then_refused(SlugTaken)


def test_creating_the_same_room_again_is_quiet() -> None:
    given = Given(DECIDER, opened(), id=ID, found={(SLUG, "vendor-payments"): ID})
    given.when(CreateRoom("Vendor Payments", DEFAULT_POLICIES)).then_quiet()
    given.when(CreateRoom("Vendor Payments", DEFAULT_POLICIES, slug="vendor-payments")).then_quiet()


def test_creating_another_room_with_the_same_id_is_refused() -> None:
    given = Given(DECIDER, opened(), id=ID)
    given.when(CreateRoom("Refunds", DEFAULT_POLICIES)).then_refused(RoomExists)


def test_faulty_policies_open_no_room() -> None:
    given = Given(DECIDER, id=ID).when(CreateRoom("Vendor Payments", FAULTY))
    assert given.then_refused(InvalidCommand).details == {"field": "policies.rules[0].when"}


def test_policies_are_replaced() -> None:
    given = Given(DECIDER, opened(), now=NOW + 5).when(ReplaceRoomPolicies(STRICT))
    given.then(RoomPoliciesReplaced(STRICT, NOW + 5))
    assert (given.state.policies, given.state.updated_at) == (STRICT, NOW + 5)


def test_replacing_policies_by_the_same_is_quiet() -> None:
    Given(DECIDER, opened()).when(ReplaceRoomPolicies(DEFAULT_POLICIES)).then_quiet()


def test_policies_of_no_room_are_refused() -> None:
    Given(DECIDER).when(ReplaceRoomPolicies(STRICT)).then_refused(RoomNotFound)


def test_faulty_policies_replace_nothing() -> None:
    Given(DECIDER, opened()).when(ReplaceRoomPolicies(FAULTY)).then_refused(InvalidCommand)


def test_only_the_creation_claims_the_slug() -> None:
    assert DECIDER.claims(opened(), ID) == (Claim(SLUG, "vendor-payments"),)
    assert DECIDER.claims(RoomPoliciesReplaced(STRICT, NOW), ID) == ()


def test_the_slugs_to_look_up_are_named() -> None:
    assert DECIDER.loads(CreateRoom("A", STRICT, slug="x"), ID) == (Lookup(SLUG, "x"),)
    assert DECIDER.loads(CreateRoom("A b", STRICT), ID) == (
        Lookup(SLUG, "a-b"),
        Lookup(SLUG, "a-b-ghjkmnpq"),
    )
    assert DECIDER.loads(ReplaceRoomPolicies(STRICT), ID) == ()


ESCALATING = msgspec.structs.replace(
    DEFAULT_POLICIES, escalate_after_minutes=5, escalate_to=["usr_1", "usr_2"]
)


DEVELOPER, VIEWER = (User("ab" * 32, roles=[role]) for role in ("developer", "viewer"))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (DEVELOPER, None),
        (VIEWER, "usr_2 decides no check-ins: not admin or developer"),
        (User(), "is nobody of this organisation"),
    ],
    ids=["decides", "may not decide", "stranger"],
)
def test_reviewers_are_people_of_the_organisation_who_may_decide(
    second: User, message: str | None
) -> None:
    known = {Ref(USER, "usr_1"): DEVELOPER, Ref(USER, "usr_2"): second}
    command = CreateRoom("Vendor Payments", ESCALATING)
    for events, one in (((), command), ((opened(),), ReplaceRoomPolicies(ESCALATING))):
        it = Given(DECIDER, *events, id=ID, states=known).when(one)
        if message is None:
            assert len(it.decided()) == 1
            continue
        place = "policies.escalate_to[1]"
        refusal = it.then_refused(InvalidCommand)
        assert (refusal.message, refusal.details) == (f"{place}: {message}", {"field": place})


def test_the_answer_is_the_room() -> None:
    room = DECIDER.evolve(Room(), opened())
    context = Context("ten_1", ID, HUMAN, NOW, "cmd_1", {}, {})
    assert DECIDER.answer(ReplaceRoomPolicies(STRICT), room, context) == RoomAnswered(
        ID, "vendor-payments", "Vendor Payments", "", DEFAULT_POLICIES, "usr_1", NOW, NOW
    )


def test_the_audit_is_told_what_was_asked() -> None:
    assert DECIDER.describe(CreateRoom("A", STRICT, slug="x")) == {"name": "A", "slug": "x"}
    assert DECIDER.describe(ReplaceRoomPolicies(STRICT)) == {"default_action": "forbid", "rules": 0}


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Vendor Payments", "vendor-payments"),
        ("  --Déjà vu!? ", "deja-vu"),
        ("支付", "room"),
        ("A" * 200, "a" * 80),
        ("x" * 79 + " yz", "x" * 79),
    ],
)
def test_slugs_are_plain(name: str, slug: str) -> None:
    assert slug_of(name) == slug


NAMES = st.text(st.sampled_from("ab ÄZ-9!"), min_size=1, max_size=4)
COMMANDS = st.one_of(
    st.builds(
        CreateRoom,
        NAMES,
        st.sampled_from([DEFAULT_POLICIES, STRICT]),
        slug=st.sampled_from(["", "a", "a-b"]),
    ),
    st.builds(ReplaceRoomPolicies, st.sampled_from([DEFAULT_POLICIES, STRICT, FAULTY])),
)


@given(st.lists(st.tuples(st.integers(0, 2), COMMANDS), max_size=12))
def test_no_sequence_of_commands_gives_two_rooms_one_slug(
    sequence: list[tuple[int, CreateRoom | ReplaceRoomPolicies]],
) -> None:
    claims: dict[str, str] = {}
    rooms = {f"room_{number}0000000": Room() for number in range(3)}
    for number, command in sequence:
        id = f"room_{number}0000000"
        found = {(SLUG, slug): holder for slug, holder in claims.items()}
        context = Context("ten_1", id, HUMAN, NOW, "cmd_1", {}, found)
        try:
            events = DECIDER.decide(command, rooms[id], context)
        except (SlugTaken, RoomExists, RoomNotFound, InvalidCommand):
            continue
        for event in events:
            for claim in DECIDER.claims(event, id):
                assert isinstance(claim, Claim)
                assert claim.key not in claims
                claims[claim.key] = id
            rooms[id] = DECIDER.evolve(rooms[id], event)
    assert {room.slug: id for id, room in rooms.items() if room.slug} == claims
    assert all(room.policies != FAULTY for room in rooms.values())


def test_a_rule_survives_the_trip_through_json() -> None:
    rules = [Rule("forbid", Conditions(action=TextMatch(glob="drop *")), name="no drops")]
    policies = msgspec.structs.replace(DEFAULT_POLICIES, rules=rules)
    assert msgspec.json.decode(msgspec.json.encode(policies), type=Policies) == policies
