// What JavaScript clients make of a door: `node javascript_clients.js CLIENT PORT KEY…` prints the values, as JSON.
const [name, port, ...keys] = process.argv.slice(2);
const host = "127.0.0.1";

const clients = {
  async ioredis() {
    const Redis = require("ioredis");
    return reading(new Redis(+port, host), (client) => client.disconnect());
  },
  async "ioredis-cluster"() {
    const { Cluster } = require("ioredis");
    return reading(new Cluster([{ host, port: +port }]), (client) => client.disconnect());
  },
  async "node-redis"() {
    const { createClient } = require("redis");
    return reading(await opened(createClient({ socket: { host, port: +port } })), (client) => client.destroy());
  },
  async "node-redis-3"() {
    const { createClient } = require("redis");
    return reading(await opened(createClient({ RESP: 3, socket: { host, port: +port } })), (client) => client.destroy());
  },
  async "node-redis-cluster"() {
    const { createCluster } = require("redis");
    const cluster = createCluster({ rootNodes: [{ socket: { host, port: +port } }] });
    return reading(await opened(cluster), (client) => client.destroy());
  },
  // Reads a first key, has the test change it (a line on stdin), and reads until its own cache has let go of it.
  async "node-redis-cache"() {
    const { createClient } = require("redis");
    const clientSideCache = { ttl: 0, maxEntries: 100 };
    const client = await opened(createClient({ RESP: 3, clientSideCache, socket: { host, port: +port } }));
    const before = [await client.get(keys[0]), await client.get(keys[0])];
    process.stdout.write("read\n");
    await new Promise((resolve) => process.stdin.once("data", resolve));
    let after = before[0];
    while (after === before[0]) {
      after = await client.get(keys[0]);
      await new Promise(setImmediate);
    }
    client.destroy();
    return [...before, after];
  },
};

async function opened(client) {
  client.on("error", (error) => fail(error));
  return client.connect();
}

async function reading(client, close) {
  client.on("error", (error) => fail(error));
  const found = await Promise.all(keys.map((key) => client.get(key)));
  close(client);
  return found;
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

clients[name]().then((found) => {
  process.stdout.write(JSON.stringify(found) + "\n", () => process.exit(0));
}, fail);
