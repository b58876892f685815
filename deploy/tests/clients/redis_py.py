"""A small script over redis-py: plain and cluster port, RESP2 and RESP3. Arguments: plain and
cluster port. Prints one line for each combination, and fails on the first wrong answer."""

import sys
import uuid

import redis
from redis.cluster import RedisCluster


def script(client, cluster):
    tag = uuid.uuid4().hex
    key = lambda name: f"{name}:{{{tag}}}"
    assert client.ping()
    assert client.set(key("s"), "v") is True
    assert client.get(key("s")) == b"v"
    assert client.set(key("s"), "w", nx=True) is None
    assert client.set(key("s"), "w", xx=True, get=True) == b"v"
    assert client.append(key("s"), "!") == 2 and client.strlen(key("s")) == 2
    assert client.incr(key("n")) == 1 and client.incrby(key("n"), 41) == 42
    assert client.decr(key("n")) == 41
    assert client.mset({key("a"): 1, key("b"): 2}) is True
    assert client.mget(key("a"), key("b"), key("none")) == [b"1", b"2", None]
    assert client.hset(key("h"), mapping={"f": "1", "g": "2"}) == 2
    assert client.hgetall(key("h")) == {b"f": b"1", b"g": b"2"}
    assert client.hincrby(key("h"), "f", 9) == 10
    assert client.hdel(key("h"), "g") == 1 and client.hlen(key("h")) == 1
    assert client.expire(key("h"), 100) and 0 < client.ttl(key("h")) <= 100
    assert client.expire(key("h"), 50, gt=True) in (0, False)
    assert client.persist(key("h")) and client.ttl(key("h")) == -1
    assert client.getdel(key("a")) == b"1" and client.exists(key("a"), key("b")) == 1
    assert client.type(key("h")) == b"hash"
    parts(client, key)
    try:
        client.get(key("h"))
        raise AssertionError("GET of a hash must be WRONGTYPE")
    except redis.ResponseError as error:
        assert str(error).startswith("WRONGTYPE"), error
    pipe = client.pipeline(transaction=False)
    for _ in range(100):
        pipe.incr(key("p"))
    assert pipe.execute() == list(range(1, 101))
    assert key("s").encode() in set(client.scan_iter(match=f"*{tag}*"))
    many = [uuid.uuid4().hex for _ in range(50)]
    for name in many:
        client.set(name, name)
    found = client.mget_nonatomic(many) if cluster else client.mget(many)
    assert found == [name.encode() for name in many]
    assert client.delete(*many) == len(many)


def parts(client, key):
    """Parts of strings, bits, sketches, floats, fields by chance, and keys under other names."""
    assert client.setrange(key("r"), 3, "xy") == 5 and client.getrange(key("r"), 2, 4) == b"\0xy"
    assert client.msetnx({key("r"): 1, key("t"): 2}) in (0, False)
    assert client.setbit(key("bits"), 7, 1) == 0 and client.bitcount(key("bits")) == 1
    assert client.bitop("NOT", key("not"), key("bits")) == 1 and client.bitpos(key("not"), 0) == 7
    assert client.bitfield(key("bits")).incrby("u8", 0, 254).get("u8", 0).execute() == [255, 255]
    assert client.pfadd(key("hll"), "a", "b", "c") == 1 and client.pfcount(key("hll")) == 3
    assert client.incrbyfloat(key("x"), 10.5) == 10.5 and client.incrbyfloat(key("x"), 0.1) == 10.6
    assert client.hset(key("o"), "f", "v") == 1 and client.hstrlen(key("o"), "f") == 1
    assert client.hscan(key("o")) == (0, {b"f": b"v"})
    assert client.hrandfield(key("o"), 5) == [b"f"]
    assert client.rename(key("r"), key("t")) and client.copy(key("t"), key("r"))
    assert client.get(key("r")) == client.get(key("t")) == b"\0\0\0xy"
    assert client.object("encoding", key("o")) == b"listpack"


def main():
    plain, cluster = int(sys.argv[1]), int(sys.argv[2])
    for protocol in (2, 3):
        script(redis.Redis(port=plain, protocol=protocol, socket_timeout=10), False)
        print(f"redis-py plain RESP{protocol} ok")
        client = RedisCluster(
            host="127.0.0.1", port=cluster, protocol=protocol, socket_timeout=10
        )
        script(client, True)
        print(f"redis-py cluster RESP{protocol} ok")


main()
