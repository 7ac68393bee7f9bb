//! A body on its way: decoded from one connection, framed again for the other, its bytes moved by reference.

use policy::limits;
use runtime::Gather;
use wire::{
    head::Framing,
    http1::body::{self, BodyError, ChunkHead, Decoder, Step, TrailerLimits},
};

pub(crate) const TRAILER_LIMITS: TrailerLimits =
    TrailerLimits { bytes_max: limits::TRAILERS_BYTES_MAX, count_max: limits::HEADERS_COUNT_DEFAULT };

/// Longest data of a chunk that is copied. A part of a vectored write costs more than to copy so little; and a body of
/// one-byte chunks would else become two parts, 64 bytes, for each of its bytes.
const COPIED_BYTES_MAX: usize = 64;

/// A body on its way from one connection to the other.
pub(super) struct Body {
    decoder: Decoder,
    chunked_out: bool,
    last_chunk_queued: bool,
    /// Its trailers end here.
    pub(super) drops_trailers: bool,
    /// Its last byte was queued.
    pub(super) ended: bool,
    /// The receiver took no more; what is left is not sent.
    pub(super) broken: bool,
}

impl Body {
    pub(super) fn new(framing: Framing, chunked_out: bool) -> Body {
        let decoder = Decoder::new(framing, TRAILER_LIMITS);
        let ended = decoder.is_ended();
        let chunked_out = chunked_out && !ended;
        Body { decoder, chunked_out, last_chunk_queued: false, drops_trailers: false, ended, broken: false }
    }

    /// Queues what `bytes`, the gather's buffer, holds of the body from `start` on; gives how many bytes were taken.
    pub(super) fn queue(
        &mut self,
        gather: &mut Gather,
        bytes: &[u8],
        start: usize,
    ) -> Result<usize, BodyError> {
        let mut at = start;
        while !self.ended {
            let step = self.decoder.receive(bytes.get(at..).unwrap_or_default())?;
            match step {
                Step::Data(count) if self.chunked_out => {
                    gather.insert(ChunkHead::new(count).as_bytes());
                    match bytes.get(at..at + count) {
                        Some(data) if count <= COPIED_BYTES_MAX => gather.insert(data),
                        _ => gather.keep(at..at + count),
                    }
                    gather.insert(body::CHUNK_END);
                    at += count;
                }
                Step::Data(count) => {
                    gather.keep(at..at + count);
                    at += count;
                }
                Step::Skip(count) => at += count,
                Step::Trailer(count) => {
                    if self.chunked_out && !self.drops_trailers {
                        self.queue_last_chunk(gather);
                        gather.keep(at..at + count);
                    }
                    at += count;
                }
                Step::NeedMore => {
                    // A body of known length may have got its last byte just now.
                    if self.decoder.is_ended() {
                        continue;
                    }
                    break;
                }
                Step::End => self.queue_end(gather),
            }
        }
        Ok(at - start)
    }

    fn queue_last_chunk(&mut self, gather: &mut Gather) {
        if !std::mem::replace(&mut self.last_chunk_queued, true) {
            gather.insert(body::LAST_CHUNK);
        }
    }

    fn queue_end(&mut self, gather: &mut Gather) {
        self.ended = true;
        if self.chunked_out {
            self.queue_last_chunk(gather);
            gather.insert(body::TRAILERS_END);
        }
    }

    /// The sender closed: an end, or a message cut short.
    pub(super) fn on_close(&mut self, gather: &mut Gather) -> Result<(), BodyError> {
        self.decoder.on_close()?;
        self.queue_end(gather);
        Ok(())
    }
}
