"""Our partitioner is Kafka's default one: any client finds a run's records where we put them."""

from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from infra.partitioning import partition_for


@given(st.binary(max_size=80), st.integers(1, 64))
def test_keys_go_where_the_default_partitioner_puts_them(key: bytes, count: int) -> None:
    every = list(range(count))
    assert partition_for(key, count) == DefaultPartitioner()(key, every, every)


def test_a_key_that_java_hashes_is_hashed_the_same() -> None:
    """Known answers of org.apache.kafka.common.utils.Utils.murmur2, as its own tests have them."""
    answers = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    for key, hashed in answers.items():
        assert partition_for(key, 1_000_003) == (hashed & 0x7FFFFFFF) % 1_000_003
