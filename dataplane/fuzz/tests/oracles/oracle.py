"""What hpack and h2 of PyPI, written apart from ours and in another language, make of the same bytes.

One line of input, in hex, is one case; one line of output is what they say. Words stand for the parts of a case, in order, and end
with the first that is an error.

    hpack BLOCK…   each word: the fields, and behind `=` the same fields as their encoder writes them
    h2 FRAME…      each word: what a server is told of the frame
"""

import logging
import sys

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import hpack

# They write of everything that is wrong.
logging.disable(logging.CRITICAL)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EMPTY_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
RST_STREAM = 3


def shown(headers):
    def one(header):
        name, value = header
        return f"{name.hex()}:{value.hex()}:{0 if header.indexable else 1}"

    return ",".join(map(one, headers))


def hpack_case(blocks):
    decoder, encoder = hpack.Decoder(max_header_list_size=1 << 30), hpack.Encoder()
    decoder.max_allowed_table_size = 4096
    for at, block in enumerate(blocks):
        try:
            headers = decoder.decode(block, raw=True)
        except hpack.HPACKError:
            yield "!"
            return
        # Names of HTTP/2 are small, and ours says so; nobody else has to look.
        yield f"{shown(headers)}={encoder.encode(headers, huffman=at % 2 == 0).hex()}"


def resets(output):
    while output:
        length = int.from_bytes(output[:3])
        if output[3] == RST_STREAM:
            yield int.from_bytes(output[5:9]), int.from_bytes(output[9:13])
        output = output[9 + length :]


def told(connection, event):
    match event:
        case h2.events.RequestReceived():
            return f"request:{event.stream_id}:{shown(event.headers).replace(',', ';')}"
        case h2.events.TrailersReceived():
            return f"trailers:{event.stream_id}"
        case h2.events.DataReceived():
            try:
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            except h2.exceptions.StreamClosedError:
                pass
            return f"data:{event.stream_id}:{event.data.hex()}"
        case h2.events.StreamEnded():
            return f"end:{event.stream_id}"
        case h2.events.StreamReset():
            return f"reset:{event.stream_id}:{int(event.error_code)}"
        case h2.events.ConnectionTerminated():
            return "goaway"
    return None


def h2_case(frames):
    config = h2.config.H2Configuration(client_side=False, header_encoding=None)
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    connection.receive_data(PREFACE + EMPTY_SETTINGS)
    connection.data_to_send()
    for frame in frames:
        try:
            events = connection.receive_data(frame)
        except h2.exceptions.ProtocolError as error:
            yield f"!{int(error.error_code)}"
            return
        words = [word for word in (told(connection, event) for event in events) if word]
        # Whether the peer or we reset it, it is over; who did is told by the output.
        ours = [f"reset:{stream}:{code}" for stream, code in resets(connection.data_to_send())]
        yield ",".join([word for word in words if word not in ours] + [f"own-{word}" for word in ours])


CASES = {"hpack": hpack_case, "h2": h2_case}
for line in sys.stdin:
    name, *parts = line.split(" ")
    print(" ".join(CASES[name](map(bytes.fromhex, parts))), flush=True)
