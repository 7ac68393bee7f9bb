// The cases of gRPC's interoperability tests by its JavaScript library (over Node's own HTTP/2), with messages by hand.
//
// grpc_client.js HOST:PORT: asks gRPC's test server there; says how many cases passed.
"use strict";

const assert = require("node:assert");
const { setTimeout: sleep } = require("node:timers/promises");
const grpc = require("@grpc/grpc-js");

const varint = (number) => {
  const out = [];
  for (; number > 127; number = Math.floor(number / 128)) out.push((number % 128) + 128);
  return Buffer.from([...out, number]);
};
const number = (field, value) => Buffer.concat([varint(field * 8), varint(value)]);
const data = (field, value) => Buffer.concat([varint(field * 8 + 2), varint(value.length), value]);

/** Fields by their numbers. */
const fields = (message) => {
  const found = new Map();
  let at = 0;
  const next = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = message[at++];
      value += (byte % 128) * factor;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const tag = next();
    const value = next();
    if (tag % 8 === 0) {
      found.set(tag >> 3, value);
    } else {
      found.set(tag >> 3, message.subarray(at, (at += value)));
    }
  }
  return found;
};

const payload = (size) => data(2, Buffer.alloc(size));
const bodySize = (response) => (fields(fields(response).get(1)).get(2) ?? []).length;
const simple = (responseSize, requestSize) =>
  Buffer.concat([number(2, responseSize), data(3, payload(requestSize))]);
const streaming = (sizes, requestSize = 0) =>
  Buffer.concat([...sizes.map((size) => data(2, number(1, size))), data(3, payload(requestSize))]);
const status = (code, message) => data(7, Buffer.concat([number(1, code), data(2, Buffer.from(message))]));

const client = new grpc.Client(process.argv[2], grpc.credentials.createInsecure(), {
  "grpc.max_receive_message_length": 1 << 25,
});
const SERVICE = "/grpc.testing.TestService/";
const SIZES = [31415, 9, 2653, 58979];
const REQUESTS = [27182, 8, 1828, 45904];
const EMPTY = Buffer.alloc(0);
const asIs = (bytes) => bytes;
const within = (milliseconds) => ({ deadline: Date.now() + milliseconds });
const DEADLINE_MS = 20000;

/** A call; its response, or the error that it ends with. */
const unary = (request, method = SERVICE + "UnaryCall", metadata = new grpc.Metadata()) => {
  let call;
  const initial = [];
  let trailing;
  const ended = new Promise((resolve, reject) => {
    const told = (error, response) => (error ? reject(error) : resolve(response));
    call = client.makeUnaryRequest(method, asIs, asIs, request, metadata, within(DEADLINE_MS), told);
    call.on("metadata", (more) => initial.push(more));
    call.on("status", (all) => (trailing = all.metadata));
  });
  return { ended, initial, trailing: () => trailing };
};

const clientStream = () => {
  let call;
  const ended = new Promise((resolve, reject) => {
    const told = (error, response) => (error ? reject(error) : resolve(response));
    const method = SERVICE + "StreamingInputCall";
    call = client.makeClientStreamRequest(method, asIs, asIs, new grpc.Metadata(), within(DEADLINE_MS), told);
  });
  return { call, ended };
};

const fullDuplex = (metadata = new grpc.Metadata(), options = within(DEADLINE_MS)) =>
  client.makeBidiStreamRequest(SERVICE + "FullDuplexCall", asIs, asIs, metadata, options);

const failsWith = async (code, details, run) => {
  const error = await run().then(
    () => assert.fail(`no ${grpc.status[code]}`),
    (error) => error,
  );
  assert.strictEqual(error.code, code, error);
  if (details !== undefined) assert.strictEqual(error.details, details);
};

const all = async (responses) => {
  const sizes = [];
  for await (const response of responses) sizes.push(bodySize(response));
  return sizes;
};

const CASES = {
  async empty_unary() {
    assert.strictEqual((await unary(EMPTY, SERVICE + "EmptyCall").ended).length, 0);
  },
  async large_unary() {
    assert.strictEqual(bodySize(await unary(simple(314159, 271828)).ended), 314159);
  },
  async larger_than_any_window() {
    // The server takes no larger messages than 4 MiB.
    const size = 6 * 1024 * 1024;
    assert.strictEqual(bodySize(await unary(simple(size, 4_000_000)).ended), size);
  },
  async client_streaming() {
    const { call, ended } = clientStream();
    REQUESTS.forEach((size) => call.write(data(1, payload(size))));
    call.end();
    const sum = REQUESTS.reduce((sum, size) => sum + size);
    assert.strictEqual(fields(await ended).get(1), sum);
  },
  async server_streaming() {
    const method = SERVICE + "StreamingOutputCall";
    const none = new grpc.Metadata();
    const options = within(DEADLINE_MS);
    const call = client.makeServerStreamRequest(method, asIs, asIs, streaming(SIZES), none, options);
    assert.deepStrictEqual(await all(call), SIZES);
  },
  async ping_pong() {
    const call = fullDuplex();
    const turns = [];
    const ask = () => {
      const at = turns.length;
      if (at < SIZES.length) call.write(streaming([SIZES[at]], REQUESTS[at]));
      else call.end();
    };
    ask();
    for await (const response of call) {
      turns.push(bodySize(response));
      ask();
    }
    assert.deepStrictEqual(turns, SIZES);
  },
  async empty_stream() {
    const call = fullDuplex();
    call.end();
    assert.deepStrictEqual(await all(call), []);
  },
  async timeout_on_sleeping_server() {
    // The server ends the call at the same time; whoever is first, it is the time that was over.
    await failsWith(grpc.status.DEADLINE_EXCEEDED, undefined, async () => {
      const call = fullDuplex(new grpc.Metadata(), within(50));
      call.write(streaming([], 27182));
      await all(call);
    });
  },
  async cancel_after_begin() {
    const { call, ended } = clientStream();
    call.cancel();
    await failsWith(grpc.status.CANCELLED, undefined, () => ended);
  },
  async cancel_after_first_response() {
    const call = fullDuplex();
    call.write(streaming([31415], 27182));
    await failsWith(grpc.status.CANCELLED, undefined, async () => {
      for await (const response of call) {
        assert.strictEqual(bodySize(response), 31415);
        call.cancel();
      }
    });
  },
  async status_code_and_message() {
    const text = "test status message";
    await failsWith(grpc.status.UNKNOWN, text, () => unary(status(2, text)).ended);
    const call = fullDuplex();
    call.end(status(2, text));
    await failsWith(grpc.status.UNKNOWN, text, () => all(call));
  },
  async special_status_message() {
    const text = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \u{1f608}\t\n";
    await failsWith(grpc.status.UNKNOWN, text, () => unary(status(2, text)).ended);
  },
  async custom_metadata() {
    const metadata = new grpc.Metadata();
    const [text, bytes] = ["test_initial_metadata_value", Buffer.from([0xab, 0xab, 0xab])];
    metadata.set("x-grpc-test-echo-initial", text);
    metadata.set("x-grpc-test-echo-trailing-bin", bytes);
    const echoed = (initial, trailing) => {
      assert.deepStrictEqual(initial.get("x-grpc-test-echo-initial"), [text]);
      assert.deepStrictEqual(trailing.get("x-grpc-test-echo-trailing-bin"), [bytes]);
    };
    const one = unary(simple(10, 10), undefined, metadata);
    await one.ended;
    // What ends a call is told in two events, in either order.
    while (one.trailing() === undefined) await sleep(1);
    echoed(one.initial[0], one.trailing());
    const call = fullDuplex(metadata);
    const [initial, ended] = ["metadata", "status"].map((name) => new Promise((told) => call.on(name, told)));
    call.end(streaming([10], 10));
    assert.deepStrictEqual(await all(call), [10]);
    echoed(await initial, (await ended).metadata);
  },
  async unimplemented_method() {
    const method = SERVICE + "UnimplementedCall";
    await failsWith(grpc.status.UNIMPLEMENTED, undefined, () => unary(EMPTY, method).ended);
  },
  async unimplemented_service() {
    const method = "/grpc.testing.UnimplementedService/UnimplementedCall";
    await failsWith(grpc.status.UNIMPLEMENTED, undefined, () => unary(EMPTY, method).ended);
  },
};

(async () => {
  for (const [name, run] of Object.entries(CASES)) {
    await run().catch((error) => {
      throw new Error(name, { cause: error });
    });
  }
  console.log(`${Object.keys(CASES).length} cases`);
  // The library keeps the timer of a call that was cancelled until its deadline.
  process.exit();
})();
