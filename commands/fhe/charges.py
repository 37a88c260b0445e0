"""What computing costs and counts as: events of the tenant's account and of its usage, for the
transaction of the job's own."""

from collections.abc import Mapping, Sequence

from commands.billing.account import Account, charge, commit, release, reserve
from commands.decider import Context, Emit, Ref
from commands.fhe.pricing import Price
from schemas.billing.account import ACCOUNT_ID, STREAM, AccountEvent, ReleaseReason
from schemas.billing.usage import STREAM as USAGE_STREAM
from schemas.billing.usage import UsageRecorded

# What `loads` must name for every function here.
ACCOUNT = Ref(STREAM, ACCOUNT_ID)


def set_aside(charge_id: str, price: Price, context: Context) -> Sequence[Emit]:
    """Before any worker is touched. Raises BudgetCapReached, QuotaExhausted."""
    account = _account(context)
    return _emitted(reserve(account, charge_id, price.amount, price.version, context.now))


def spent(charge_id: str, amount: int, context: Context) -> Sequence[Emit]:
    """What was set aside, with the result."""
    return _emitted(commit(_account(context), charge_id, amount, context.now))


def spent_at_once(charge_id: str, price: Price, context: Context) -> Sequence[Emit]:
    """For a result that is there already. Raises BudgetCapReached, QuotaExhausted."""
    account = _account(context)
    return _emitted(charge(account, charge_id, price.amount, price.version, context.now))


def freed(charge_id: str, amount: int, reason: ReleaseReason, context: Context) -> Sequence[Emit]:
    """What was set aside, when there is no result."""
    return _emitted(release(_account(context), charge_id, amount, reason, context.now))


def counted(
    ids: Mapping[str, str], quantities: Mapping[str, int], context: Context
) -> Sequence[Emit]:
    """Usage of each meter with a quantity, under the id that `ids` has for it."""
    return [
        Emit(
            USAGE_STREAM,
            usage_id,
            UsageRecorded(
                usage_id=usage_id,
                meter=meter,
                quantity=quantities[meter],
                occurred_at=context.now,
                source="fhe",
                resource=context.stream_id,
            ),
        )
        for meter, usage_id in ids.items()
        if quantities[meter]
    ]


def _account(context: Context) -> Account:
    account: Account = context.state(ACCOUNT.stream, ACCOUNT.id)
    return account


def _emitted(events: Sequence[AccountEvent]) -> Sequence[Emit]:
    return [Emit(ACCOUNT.stream, ACCOUNT.id, event) for event in events]
