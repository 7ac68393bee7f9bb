//! Where a body comes from and where it goes, for exchanges in which one side or both speak HTTP/2.
//!
//! Nothing here waits for time: who polls decides when to stop, see [`Halt`]. A body's bytes are copied once, into the
//! output of the other side.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use policy::limits;
use runtime::{Buffer, BufferPool, Deadline, Gather, Io, timer::Alarm};
use wire::{
    head::Framing,
    http1::body::{self, BodyError, ChunkHead, Decoder, Step},
};

use super::body::TRAILER_LIMITS;
use crate::{
    http2::{Gone, Piece, Stream},
    telemetry::metrics::Counter,
    transport,
    upstream::{End, Received},
};

/// Stops both halves of an exchange at their next step.
#[derive(Default)]
pub(super) struct Halt(Cell<bool>);

impl Halt {
    /// Stops them; who waits must be polled.
    pub(super) fn stop(&self) {
        self.0.set(true);
    }

    /// Whether they shall stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.0.get()
    }
}

/// Where a body comes from.
pub(super) enum Source<'a, I: Io> {
    /// A connection that speaks HTTP/1.1.
    Http1(Http1Source<'a, I>),
    /// A stream.
    Http2 {
        stream: &'a Stream,
        /// What was received and not taken.
        bytes: Buffer,
    },
}

/// A body on a connection that speaks HTTP/1.1.
pub(super) struct Http1Source<'a, I: Io> {
    pub(super) received: Received<'a, I>,
    /// What was received and not taken, from the body's next byte on.
    pub(super) bytes: Buffer,
    pub(super) decoder: Decoder,
    /// What the decoder has said of what is behind the last part.
    next: Option<Step>,
    /// Framing behind the last part.
    skipped: usize,
    /// Bytes of the body, or of its framing, are gone: who reads it again does not read it from its beginning.
    pub(super) is_begun: bool,
}

/// What came of a body. Trailers come with its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    /// So many bytes, at the front of [`Source::bytes`].
    pub(super) count: usize,
    /// Nothing follows.
    pub(super) ends: bool,
}

/// Why a body does not come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Broken {
    /// It is malformed, or cut short.
    Malformed(BodyError),
    /// Its connection, or stream, is over.
    Over,
    /// It was stopped.
    Halted,
}

impl<'a, I: Io> Http1Source<'a, I> {
    /// The body that `framing` announces; `bytes` begin with what has come of it.
    pub(super) fn new(received: Received<'a, I>, bytes: Buffer, framing: Framing) -> Self {
        let decoder = Decoder::new(framing, TRAILER_LIMITS);
        Http1Source { received, bytes, decoder, next: None, skipped: 0, is_begun: false }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &BufferPool,
        trailers: &mut Vec<u8>,
    ) -> Poll<Result<Part, Broken>> {
        loop {
            let step = match self.next.take() {
                Some(step) => step,
                None => self.decoder.receive(self.bytes.filled()).map_err(Broken::Malformed)?,
            };
            self.is_begun |= !matches!(step, Step::NeedMore);
            match step {
                Step::Data(count) => {
                    let ends = self.look_behind(count, trailers).map_err(Broken::Malformed)?;
                    return Poll::Ready(Ok(Part { count, ends }));
                }
                Step::Skip(count) => self.bytes.consume(count),
                Step::Trailer(count) => {
                    trailers.extend_from_slice(self.bytes.filled().get(..count).unwrap_or_default());
                    self.bytes.consume(count);
                }
                Step::End => return Poll::Ready(Ok(Part { count: 0, ends: true })),
                Step::NeedMore if self.decoder.is_ended() => {}
                Step::NeedMore => match std::task::ready!(self.poll_more(cx, buffers)) {
                    Ok(()) => {}
                    Err(End::Closed) => {
                        self.decoder.on_close().map_err(Broken::Malformed)?;
                    }
                    Err(End::Reset) => return Poll::Ready(Err(Broken::Over)),
                },
            }
        }
    }

    /// What is behind `count` bytes of data, as far as that is framing; whether it is the end.
    fn look_behind(&mut self, count: usize, trailers: &mut Vec<u8>) -> Result<bool, BodyError> {
        self.skipped = 0;
        loop {
            let rest = self.bytes.filled().get(count + self.skipped..).unwrap_or_default();
            match self.decoder.receive(rest)? {
                Step::Skip(more) => self.skipped += more,
                Step::Trailer(more) => {
                    trailers.extend_from_slice(rest.get(..more).unwrap_or_default());
                    self.skipped += more;
                }
                Step::End => return Ok(true),
                Step::NeedMore => return Ok(self.decoder.is_ended()),
                step @ Step::Data(_) => {
                    self.next = Some(step);
                    return Ok(false);
                }
            }
        }
    }

    /// Receives behind what is there.
    fn poll_more(&mut self, cx: &mut Context<'_>, buffers: &BufferPool) -> Poll<Result<(), End>> {
        self.bytes.compact();
        if self.bytes.is_empty() {
            buffers.put(std::mem::take(&mut self.bytes));
        }
        self.received.poll_into(cx, buffers, &mut self.bytes)
    }
}

impl<I: Io> Source<'_, I> {
    /// From now on everything is data, up to the end.
    pub(super) fn become_tunnel(&mut self) {
        if let Source::Http1(source) = self {
            source.decoder = Decoder::new(Framing::UntilClose, TRAILER_LIMITS);
        }
    }

    /// The next part; its bytes are at the front of [`Source::bytes`], the trailer lines in `trailers` when it ends.
    pub(super) async fn next(
        &mut self,
        buffers: &BufferPool,
        trailers: &mut Vec<u8>,
        halt: &Halt,
    ) -> Result<Part, Broken> {
        poll_fn(|cx| match halt.is_stopped() {
            true => Poll::Ready(Err(Broken::Halted)),
            false => self.poll(cx, buffers, trailers),
        })
        .await
    }

    /// The same, if it is there.
    pub(super) async fn try_next(
        &mut self,
        buffers: &BufferPool,
        trailers: &mut Vec<u8>,
    ) -> Option<Result<Part, Broken>> {
        poll_fn(|cx| match self.poll(cx, buffers, trailers) {
            Poll::Ready(part) => Poll::Ready(Some(part)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &BufferPool,
        trailers: &mut Vec<u8>,
    ) -> Poll<Result<Part, Broken>> {
        match self {
            Source::Http1(source) => source.poll(cx, buffers, trailers),
            Source::Http2 { stream, bytes } => match std::task::ready!(stream.poll_piece(cx)) {
                Ok(Piece::Data { bytes: came, ends }) => {
                    buffers.put(std::mem::replace(bytes, came));
                    Poll::Ready(Ok(Part { count: bytes.len(), ends }))
                }
                Ok(Piece::End) => {
                    stream.take_trailers(trailers);
                    Poll::Ready(Ok(Part { count: 0, ends: true }))
                }
                Err(Gone::Reset | Gone::Refused | Gone::Left | Gone::Connection) => {
                    Poll::Ready(Err(Broken::Over))
                }
            },
        }
    }

    /// The bytes of a part.
    pub(super) fn bytes(&self, part: Part) -> &[u8] {
        let bytes = match self {
            Source::Http1(source) => &source.bytes,
            Source::Http2 { bytes, .. } => bytes,
        };
        bytes.filled().get(..part.count).unwrap_or_default()
    }

    /// What was received and not taken.
    pub(super) fn take_bytes(&mut self) -> Buffer {
        match self {
            Source::Http1(source) => std::mem::take(&mut source.bytes),
            Source::Http2 { bytes, .. } => std::mem::take(bytes),
        }
    }

    /// The bytes of a part have found their place.
    pub(super) fn done(&mut self, part: Part, buffers: &BufferPool) {
        match self {
            Source::Http1(source) => source.bytes.consume(part.count + std::mem::take(&mut source.skipped)),
            Source::Http2 { stream, bytes } => {
                stream.consumed(part.count);
                buffers.put(std::mem::take(bytes));
            }
        }
    }
}

/// Where a body goes.
pub(super) enum Sink<'a, I: Io> {
    /// A connection that speaks HTTP/1.1.
    Http1 {
        send: &'a mut transport::Send<I>,
        /// What is queued goes out with the next part.
        gather: &'a mut Gather,
        /// The body goes in chunks.
        is_chunked: bool,
        /// Its end is the end of what is sent.
        is_tunnel: bool,
        /// Counts bytes that were sent.
        sent: &'a Counter,
    },
    /// A stream.
    Http2(&'a Stream),
}

/// Why a body does not go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// Who shall have it takes no more.
    Over,
    /// Not in time.
    TimedOut,
    /// It was stopped.
    Halted,
}

impl<I: Io> Sink<'_, I> {
    /// From now on everything is data, up to the end.
    pub(super) fn become_tunnel(&mut self) {
        if let Sink::Http1 { is_chunked, is_tunnel, .. } = self {
            (*is_chunked, *is_tunnel) = (false, true);
        }
    }

    /// Sends a part, and the end with its trailers if it `ends`. `until` bounds each send.
    pub(super) async fn send(
        &mut self,
        (bytes, ends, trailers): (&[u8], bool, &[u8]),
        buffers: &BufferPool,
        until: impl Fn() -> Deadline + Copy,
        halt: &Halt,
    ) -> Result<(), Refused> {
        match self {
            Sink::Http1 { gather, is_chunked, .. } => {
                if !bytes.is_empty() && *is_chunked {
                    gather.insert(ChunkHead::new(bytes.len()).as_bytes());
                    gather.insert(bytes);
                    gather.insert(body::CHUNK_END);
                } else {
                    gather.insert(bytes);
                }
                if ends && *is_chunked {
                    gather.insert(body::LAST_CHUNK);
                    gather.insert(trailers);
                    gather.insert(body::TRAILERS_END);
                }
                self.flush(buffers, until, halt).await?;
                match self {
                    Sink::Http1 { send, is_tunnel: true, .. } if ends => {
                        send.finish(until()).await.map_err(|_| Refused::Over)
                    }
                    _ => Ok(()),
                }
            }
            Sink::Http2(stream) => {
                let (mut rest, ends_with_data) = (bytes, ends && trailers.is_empty());
                while !rest.is_empty() {
                    let sent = poll_fn(|cx| match halt.is_stopped() {
                        true => Poll::Ready(Err(Refused::Halted)),
                        false => stream.poll_send(cx, rest, ends_with_data).map_err(|_| Refused::Over),
                    })
                    .await?;
                    rest = rest.get(sent..).unwrap_or_default();
                }
                if ends && !stream.has_sent_all() {
                    stream.send_end(trailers);
                }
                Ok(())
            }
        }
    }

    /// Takes the buffer into which what is queued points, until it was sent; or gives it back where nothing does.
    pub(super) fn lend(&mut self, bytes: Buffer, buffers: &BufferPool) {
        match self {
            Sink::Http1 { gather, .. } => gather.put_buffer(bytes),
            Sink::Http2(_) => buffers.put(bytes),
        }
    }

    /// Ends a send that is in flight.
    pub(super) fn cancel_handle(&self) -> Option<Alarm> {
        match self {
            Sink::Http1 { send, .. } => Some(send.cancel_handle()),
            Sink::Http2(_) => None,
        }
    }

    /// Sends what is queued.
    pub(super) async fn flush(
        &mut self,
        buffers: &BufferPool,
        until: impl Fn() -> Deadline,
        halt: &Halt,
    ) -> Result<(), Refused> {
        let Sink::Http1 { send, gather, sent, .. } = self else { return Ok(()) };
        if gather.is_sent() {
            return Ok(());
        }
        // A send that begins now would not hear the cancel that was given.
        if halt.is_stopped() {
            return Err(Refused::Halted);
        }
        let count = gather.unsent_len();
        let result = send.send_all(gather, until()).await;
        sent.add((count - gather.unsent_len()) as u64);
        buffers.put(gather.take_buffer());
        result.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => Refused::TimedOut,
            io::ErrorKind::Interrupted => Refused::Halted,
            _ => Refused::Over,
        })
    }
}

const _: () = assert!(limits::TRAILERS_BYTES_MAX < limits::RECV_BUFFER_BYTES);
