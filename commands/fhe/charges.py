"""What computing costs and counts as, and how many keys there may be: events of the tenant's
account and of its usage, for the transaction of the job's or the key's own."""

from collections.abc import Mapping, Sequence

from commands.billing.account import admit_key, release_key
from commands.billing.account_state import Account
from commands.billing.charges import charge, commit, release, reserve
from commands.billing.usage import Usage
from commands.decider import Context, Emit, Ref
from commands.fhe.pricing import Price, price_of
from schemas.billing.account import ACCOUNT_ID, STREAM, AccountEvent, ReleaseReason
from schemas.billing.usage import STREAM as USAGE_STREAM
from schemas.billing.usage import UsageRecorded

# What `loads` must name for every function here.
ACCOUNT = Ref(STREAM, ACCOUNT_ID)
# What a computation counts as: one operation, and the processor time that it took.
OPERATIONS_METER, CPU_METER = "fhe.operations", "fhe.cpu_microseconds"
# What an operation counts as whose result was there already.
CACHED_METER = "fhe.cached_operations"
# What all of it costs.
PRICE_METER = "fhe.price_nanodollars"


def set_aside(charge_id: str, price: Price, context: Context) -> Sequence[Emit]:
    """Before any worker is touched. Raises BudgetCapReached, QuotaExhausted."""
    account = _account(context)
    return _emitted(reserve(account, charge_id, price.amount, price.version, context.now))


def spent(charge_id: str, amount: int, context: Context) -> Sequence[Emit]:
    """What was set aside, with the result."""
    return _emitted(commit(_account(context), charge_id, amount, context.now))


def reused(
    request_id: str, operation: str, params_id: str, quantity: int, context: Context
) -> Sequence[Emit]:
    """A request for the result of the context's job, which is there: it counts, and costs its
    share, once. Raises BudgetCapReached, QuotaExhausted."""
    ids = reuse_ids(context.stream_id, request_id)
    before: Usage = context.state(USAGE_STREAM, ids[CACHED_METER])
    if before.meter:
        return []
    price = price_of(operation, params_id, quantity, context.now, cached=True)
    quantities = {CACHED_METER: quantity, PRICE_METER: price.amount}
    charge_id = f"{context.stream_id}.{request_id}"
    paid = charge(_account(context), charge_id, price.amount, price.version, context.now)
    return [*counted(ids, quantities, context), *_emitted(paid)]


def freed(charge_id: str, amount: int, reason: ReleaseReason, context: Context) -> Sequence[Emit]:
    """What was set aside, when there is no result."""
    return _emitted(release(_account(context), charge_id, amount, reason, context.now))


def key_admitted(key_id: str, context: Context) -> Sequence[Emit]:
    """One more live evaluation key. Raises EvaluationKeysExhausted."""
    return _emitted(admit_key(_account(context), key_id))


def key_released(key_id: str, context: Context) -> Sequence[Emit]:
    """One less, of those that were admitted."""
    return _emitted(release_key(_account(context), key_id))


def usage_ids(job_id: str, attempt: int) -> Mapping[str, str]:
    """The usage that an attempt's result counts as, by meter."""
    name = attempt_name(job_id, attempt)
    return {meter: f"{name}.{meter}" for meter in (OPERATIONS_METER, CPU_METER, PRICE_METER)}


def reuse_ids(job_id: str, request_id: str) -> Mapping[str, str]:
    """The usage that a request for a result that is there counts as, by meter."""
    return {meter: f"{job_id}.{request_id}.{meter}" for meter in (CACHED_METER, PRICE_METER)}


def attempt_name(job_id: str, attempt: int) -> str:
    """What one attempt at a job is counted and charged as."""
    return job_id if attempt <= 1 else f"{job_id}.{attempt}"


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
