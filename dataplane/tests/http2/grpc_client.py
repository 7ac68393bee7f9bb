"""The cases of gRPC's interoperability tests by its Python library (its C core), with messages written by hand.

grpc_client.py HOST:PORT: asks gRPC's test server there; says how many cases passed.
"""

import sys
import time

import grpc


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def number(field, value):
    return varint(field << 3) + varint(value)


def data(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def fields(message):
    at, found = 0, {}

    def next_varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = next_varint()
        if tag & 7 == 0:
            found[tag >> 3] = next_varint()
        else:
            length = next_varint()
            found[tag >> 3] = message[at : at + length]
            at += length
    return found


def payload(size):
    return data(2, bytes(size))


def body_size(response):
    return len(fields(fields(response)[1]).get(2, b""))


def simple(response_size, request_size, more=b""):
    return number(2, response_size) + data(3, payload(request_size)) + more


def streaming(sizes, request_size=0, more=b""):
    parameters = b"".join(data(2, number(1, size)) for size in sizes)
    return parameters + data(3, payload(request_size)) + more


channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.max_receive_message_length", 1 << 25)])
SERVICE = "/grpc.testing.TestService/"
DEADLINE = 20
SIZES = [31415, 9, 2653, 58979]
REQUESTS = [27182, 8, 1828, 45904]


def unary(method="UnaryCall", service=SERVICE):
    return channel.unary_unary(service + method)


def full_duplex():
    return channel.stream_stream(SERVICE + "FullDuplexCall")


def empty_unary():
    assert unary("EmptyCall")(b"", timeout=DEADLINE) == b""


def large_unary():
    assert body_size(unary()(simple(314159, 271828), timeout=DEADLINE)) == 314159


def larger_than_any_window():
    size = 6 << 20
    # The server takes no larger messages than 4 MiB.
    assert body_size(unary()(simple(size, 4_000_000), timeout=DEADLINE)) == size


def client_streaming():
    call = channel.stream_unary(SERVICE + "StreamingInputCall")
    response = call((data(1, payload(size)) for size in REQUESTS), timeout=DEADLINE)
    assert fields(response)[1] == sum(REQUESTS)


def server_streaming():
    call = channel.unary_stream(SERVICE + "StreamingOutputCall")
    assert [body_size(one) for one in call(streaming(SIZES), timeout=DEADLINE)] == SIZES


def ping_pong():
    turns = []

    def requests():
        for at, (size, request_size) in enumerate(zip(SIZES, REQUESTS)):
            while len(turns) < at:
                time.sleep(0.001)
            yield streaming([size], request_size)

    for response in full_duplex()(requests(), timeout=DEADLINE):
        turns.append(body_size(response))
    assert turns == SIZES


def empty_stream():
    assert list(full_duplex()(iter(()), timeout=DEADLINE)) == []


def fails_with(code, details, run):
    try:
        run()
    except grpc.RpcError as error:
        assert error.code() == code, error
        assert details is None or error.details() == details, error
        return
    raise AssertionError(f"no {code}")


def timeout_on_sleeping_server():
    # The server ends the call at the same time; whoever is first, it is the time that was over.
    def run():
        def requests():
            yield streaming([], 27182)
            time.sleep(1)

        list(full_duplex()(requests(), timeout=0.05))

    fails_with(grpc.StatusCode.DEADLINE_EXCEEDED, None, run)


def cancel_after_first_response():
    def requests():
        yield streaming([31415], 27182)
        time.sleep(1)

    call = full_duplex()(requests(), timeout=DEADLINE)
    assert body_size(next(call)) == 31415
    call.cancel()
    assert call.code() == grpc.StatusCode.CANCELLED


def status_code_and_message():
    text = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"
    status = data(7, number(1, 2) + data(2, text.encode()))
    fails_with(grpc.StatusCode.UNKNOWN, text, lambda: unary()(status, timeout=DEADLINE))


def custom_metadata():
    metadata = (
        ("x-grpc-test-echo-initial", "test_initial_metadata_value"),
        ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab"),
    )
    _, call = unary().with_call(simple(10, 10), metadata=metadata, timeout=DEADLINE)
    assert metadata[0] in [tuple(one) for one in call.initial_metadata()], call.initial_metadata()
    assert metadata[1] in [tuple(one) for one in call.trailing_metadata()], call.trailing_metadata()


def unimplemented():
    code = grpc.StatusCode.UNIMPLEMENTED
    fails_with(code, None, lambda: unary("UnimplementedCall")(b"", timeout=DEADLINE))
    other = "/grpc.testing.UnimplementedService/"
    fails_with(code, None, lambda: unary("UnimplementedCall", other)(b"", timeout=DEADLINE))


CASES = [
    empty_unary,
    large_unary,
    larger_than_any_window,
    client_streaming,
    server_streaming,
    ping_pong,
    empty_stream,
    timeout_on_sleeping_server,
    cancel_after_first_response,
    status_code_and_message,
    custom_metadata,
    unimplemented,
]
for case in CASES:
    case()
print(f"{len(CASES)} cases")
