//! WebSocket, which its client asks for over either HTTP: UP-10. The origin speaks HTTP/1.1; all pairings, and an hour of silence
//! on a clock of its own, are among the stories of upgrades.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::mpsc::channel,
    time::Duration,
};

use crate::{
    client::End,
    http2::{CANCEL, DATA, END_STREAM, Peer, frame, head, reset as reset_frame},
    ledger::{Unsafe, Verdict},
    recorder::reset,
    trial::Trials,
};

/// Frames of one conversation.
const FRAMES: usize = 10_000;

/// Bytes that end a way: less than any window.
const BYTES: usize = 20_000;

/// The stream of a client of HTTP/2.
const STREAM: u32 = 1;

/// Each way ends for itself; a reset goes through; frames come back in their order and as they were.
pub(crate) fn tunnels(trials: &mut Trials<'_>) {
    for is_http2 in [false, true] {
        for _ in 0..10 {
            trial(trials, is_http2, "FIN from the client first", client_ends_first);
            trial(trials, is_http2, "FIN from the origin first", origin_ends_first);
            trial(trials, is_http2, "RST from the client", client_resets);
            trial(trials, is_http2, "RST from the origin", origin_resets);
        }
        trial(trials, is_http2, "10,000 frames", frames);
    }
}

/// What of it is not as it should be.
type Outcome = io::Result<Option<(Unsafe, String)>>;

/// The client's end of a tunnel.
enum Tunnel {
    Connection(TcpStream),
    /// How many bytes of the stream were taken.
    Stream(Peer, usize),
}

fn trial(trials: &mut Trials<'_>, is_http2: bool, name: &str, run: fn(&Trials<'_>, bool) -> Outcome) {
    if trials.has_enough() {
        return;
    }
    let mut verdict = Verdict::default();
    match run(trials, is_http2) {
        Ok(found) => verdict.found.extend(found),
        Err(error) => verdict.found.push((Unsafe::Lost, error.to_string())),
    }
    let version = if is_http2 { "HTTP/2" } else { "HTTP/1.1" };
    trials.tally.count(&format!("{name}, over {version}"), verdict);
}

fn client_ends_first(trials: &Trials<'_>, is_http2: bool) -> Outcome {
    let mut client = open(trials, is_http2, |origin| {
        let mut bytes = Vec::new();
        origin.read_to_end(&mut bytes)?;
        // All of it, after the other way has ended.
        origin.write_all(&bytes)
    })?;
    client.send(&many())?;
    client.finish()?;
    let echo = client.rest()?;
    Ok(differs("the echo behind an end", &echo, &many()))
}

fn origin_ends_first(trials: &Trials<'_>, is_http2: bool) -> Outcome {
    let (arrived, what_arrived) = channel();
    let mut client = open(trials, is_http2, move |origin| {
        origin.write_all(&many())?;
        origin.shutdown(Shutdown::Write)?;
        let mut bytes = Vec::new();
        origin.read_to_end(&mut bytes)?;
        // Nobody asks for it any more when the trial has failed.
        let _ = arrived.send(bytes);
        Ok(())
    })?;
    let bytes = client.rest()?;
    client.send(&many())?;
    client.finish()?;
    let arrived = what_arrived.recv_timeout(trials.subject.patience).unwrap_or_default();
    Ok(differs("bytes before an end", &bytes, &many())
        .or_else(|| differs("bytes against an end", &arrived, &many())))
}

fn client_resets(trials: &Trials<'_>, is_http2: bool) -> Outcome {
    let (ended, how) = channel();
    let mut client = open(trials, is_http2, move |origin| {
        let mut byte = [0; 1];
        origin.read_exact(&mut byte)?;
        origin.write_all(&byte)?;
        let _ = ended.send(origin.read(&mut byte).map_err(|error| error.kind()));
        Ok(())
    })?;
    client.send(b"x")?;
    client.next(1)?;
    // A connection of HTTP/2 lives on.
    let _alive = client.reset()?;
    let found = match how.recv_timeout(trials.subject.patience) {
        Ok(Err(io::ErrorKind::ConnectionReset)) => None,
        Ok(Ok(0)) => Some((Unsafe::Truncated, "the origin got FIN in place of RST".to_owned())),
        other => Some((Unsafe::Lost, format!("the origin got {other:?} in place of RST"))),
    };
    Ok(found)
}

fn origin_resets(trials: &Trials<'_>, is_http2: bool) -> Outcome {
    let mut client = open(trials, is_http2, |origin| {
        origin.read_exact(&mut [0; 1])?;
        reset(origin)
    })?;
    client.send(b"x")?;
    Ok(match client.end() {
        End::Reset => None,
        End::Fin => Some((Unsafe::Truncated, "the client got an end in place of a reset".to_owned())),
        End::Silence => Some((Unsafe::Lost, "the client got nothing in place of a reset".to_owned())),
    })
}

fn frames(trials: &Trials<'_>, is_http2: bool) -> Outcome {
    let mut client = open(trials, is_http2, |origin| {
        let mut frame = [0; MASKED_BYTES];
        for _ in 0..FRAMES {
            origin.read_exact(&mut frame)?;
            origin.write_all(&[&[BINARY, TEXT_BYTES as u8][..], &unmasked(&frame)].concat())?;
        }
        Ok(())
    })?;
    for n in 0..FRAMES {
        let text = format!("{n:0>TEXT_BYTES$}");
        client.send(&masked(text.as_bytes(), (n as u32).to_be_bytes()))?;
        let back = client.next(2 + TEXT_BYTES)?;
        if back[..2] != [BINARY, TEXT_BYTES as u8] || back[2..] != *text.as_bytes() {
            return Ok(Some((Unsafe::Crossed, format!("frame {n} came back as {}", back.escape_ascii()))));
        }
    }
    Ok(None)
}

/// Bytes of what a frame carries.
const TEXT_BYTES: usize = 32;
/// Bytes of a client's frame: its head, its mask, and what it carries.
const MASKED_BYTES: usize = 6 + TEXT_BYTES;
/// A whole binary message (RFC 6455 §5.2).
const BINARY: u8 = 0x82;

fn masked(text: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let text = text.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [BINARY, 0x80 | TEXT_BYTES as u8].into_iter().chain(mask).chain(text).collect()
}

fn unmasked(frame: &[u8; MASKED_BYTES]) -> Vec<u8> {
    let (mask, text) = frame[2..].split_at(4);
    text.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
}

fn many() -> Vec<u8> {
    (0..BYTES).map(|at| (at % 251) as u8).collect()
}

fn differs(what: &str, got: &[u8], expected: &[u8]) -> Option<(Unsafe, String)> {
    (got != expected)
        .then(|| (Unsafe::Truncated, format!("{what}: {} bytes of {}", got.len(), expected.len())))
}

/// A tunnel to an origin that grants it and then does this.
fn open(
    trials: &Trials<'_>,
    is_http2: bool,
    serve: impl FnOnce(&mut TcpStream) -> io::Result<()> + Send + 'static,
) -> io::Result<Tunnel> {
    trials.world.tcp.script(move |mut origin| {
        origin.set_nodelay(true)?;
        let asked = read_head(&mut origin)?.to_ascii_lowercase();
        if !asked.contains("\r\nupgrade: websocket\r\n") {
            return Err(io::Error::other(asked));
        }
        origin.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )?;
        serve(&mut origin)
    });
    let (address, patience) = (trials.subject.address, trials.subject.patience);
    match is_http2 {
        true => over_http2(Peer::connect(address, patience, b"")),
        false => over_http1(TcpStream::connect(address)?, patience),
    }
}

fn over_http1(mut stream: TcpStream, patience: Duration) -> io::Result<Tunnel> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let told = read_head(&mut stream)?;
    if !told.starts_with("HTTP/1.1 101 ") {
        return Err(io::Error::other(told));
    }
    Ok(Tunnel::Connection(stream))
}

/// RFC 8441.
fn over_http2(mut peer: Peer) -> io::Result<Tunnel> {
    peer.send(&head(
        STREAM,
        false,
        &[
            (b":method", b"CONNECT"),
            (b":protocol", b"websocket"),
            (b":scheme", b"http"),
            (b":authority", b"a"),
            (b":path", b"/ws"),
            (b"sec-websocket-version", b"13"),
        ],
    ));
    let status = |peer: &Peer| peer.streams.get(&STREAM).map_or(0, |got| got.message.head.status());
    peer.until(|peer| status(peer) > 0);
    match status(&peer) {
        200 => Ok(Tunnel::Stream(peer, 0)),
        other => Err(io::Error::other(format!("{other} to CONNECT"))),
    }
}

/// What comes up to an empty line, and not a byte of what is behind it.
fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0; 1]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

impl Tunnel {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Tunnel::Connection(stream) => stream.write_all(bytes),
            Tunnel::Stream(peer, _) => {
                let parts = bytes.chunks(8 * 1024).flat_map(|part| frame(DATA, 0, STREAM, part));
                let is_sent = peer.send(&parts.collect::<Vec<u8>>());
                if is_sent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
            }
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match self {
            Tunnel::Connection(stream) => stream.shutdown(Shutdown::Write),
            Tunnel::Stream(peer, _) => {
                peer.send(&frame(DATA, END_STREAM, STREAM, b""));
                Ok(())
            }
        }
    }

    /// The next so many bytes.
    fn next(&mut self, count: usize) -> io::Result<Vec<u8>> {
        match self {
            Tunnel::Connection(stream) => {
                let mut bytes = vec![0; count];
                stream.read_exact(&mut bytes)?;
                Ok(bytes)
            }
            Tunnel::Stream(peer, taken) => {
                let wanted = *taken..*taken + count;
                peer.until(|peer| body(peer).len() >= wanted.end);
                *taken = wanted.end;
                body(peer).get(wanted).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
        }
    }

    /// All that comes, up to an end that is none of a tunnel that broke.
    fn rest(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Tunnel::Connection(stream) => {
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes)?;
                Ok(bytes)
            }
            Tunnel::Stream(peer, taken) => {
                let is_whole =
                    peer.until(|peer| peer.streams.get(&STREAM).is_some_and(|got| got.message.is_whole));
                let bytes = body(peer).get(*taken..).unwrap_or_default().to_vec();
                if is_whole { Ok(bytes) } else { Err(io::ErrorKind::ConnectionReset.into()) }
            }
        }
    }

    /// Breaks it; what it went over, where that is still there.
    fn reset(self) -> io::Result<Option<Peer>> {
        match self {
            Tunnel::Connection(stream) => reset(&stream).map(|()| None),
            Tunnel::Stream(mut peer, _) => {
                peer.send(&reset_frame(STREAM, CANCEL));
                Ok(Some(peer))
            }
        }
    }

    /// How it ends.
    fn end(&mut self) -> End {
        match self {
            Tunnel::Connection(stream) => match stream.read(&mut [0; 1]) {
                Ok(_) => End::Fin,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => End::Reset,
                Err(_) => End::Silence,
            },
            Tunnel::Stream(peer, _) => {
                let over = |peer: &Peer| {
                    let got = peer.streams.get(&STREAM)?;
                    let is_reset = got.reset.map(|_| End::Reset);
                    is_reset.or(got.message.is_whole.then_some(End::Fin))
                };
                peer.until(|peer| over(peer).is_some());
                over(peer).unwrap_or(End::Silence)
            }
        }
    }
}

fn body(peer: &Peer) -> &[u8] {
    peer.streams.get(&STREAM).map_or(&[], |got| &got.message.body)
}
