// A small script over ioredis: plain and cluster port, RESP2 and RESP3. Arguments: plain and
// cluster port. Prints one line for each combination, and fails on the first wrong answer.

const assert = require("node:assert/strict");
const crypto = require("node:crypto");
const Redis = require("ioredis");

async function script(client) {
  const tag = crypto.randomUUID();
  const key = (name) => `${name}:{${tag}}`;
  assert.equal(await client.set(key("s"), "v"), "OK");
  assert.equal(await client.get(key("s")), "v");
  assert.equal(await client.set(key("s"), "w", "NX"), null);
  assert.equal(await client.incrby(key("n"), 42), 42);
  assert.deepEqual(await client.mset(key("a"), 1, key("b"), 2), "OK");
  assert.deepEqual(await client.mget(key("a"), key("b"), key("none")), ["1", "2", null]);
  assert.equal(await client.hset(key("h"), { f: "1", g: "2" }), 2);
  assert.deepEqual({ ...(await client.hgetall(key("h"))) }, { f: "1", g: "2" });
  assert.equal(await client.hincrby(key("h"), "f", 9), 10);
  assert.equal(await client.expire(key("h"), 100), 1);
  const ttl = await client.ttl(key("h"));
  assert.ok(ttl > 0 && ttl <= 100, `ttl ${ttl}`);
  await assert.rejects(client.get(key("h")), /WRONGTYPE/);
  const pipeline = client.pipeline();
  for (let i = 0; i < 100; i++) pipeline.incr(key("p"));
  const replies = await pipeline.exec();
  assert.deepEqual(replies.map(([, reply]) => reply), Array.from({ length: 100 }, (_, i) => i + 1));
  assert.equal(await client.del(key("s"), key("n"), key("h")), 3);
}

async function main() {
  const [plain, cluster] = process.argv.slice(2).map(Number);
  for (const protocol of [2, 3]) {
    const one = new Redis({ port: plain, protocol, maxRetriesPerRequest: 3 });
    await script(one);
    console.log(`ioredis plain RESP${protocol} ok (asked for ${protocol})`);
    one.disconnect();
    const many = new Redis.Cluster([{ host: "127.0.0.1", port: cluster }], {
      redisOptions: { protocol },
    });
    await script(many);
    console.log(`ioredis cluster RESP${protocol} ok (asked for ${protocol})`);
    many.disconnect();
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
