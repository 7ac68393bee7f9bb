//! A connection to the origin that speaks HTTP/2: what it answers is the same, with the streams that are ready in one
//! write.

use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::rc::Rc;

use wire::Tick;
use wire::head::{Method, RequestHead, ResponseView, Version};
use wire::http1::encode::{BodyOut, ResponseEdits};
use wire::http2::{Connection, Event, StreamKey};

use super::{Reply, Site, Whole};
use crate::http2;

pub(super) struct Http2 {
    wire: Connection,
    /// Received, and not whole.
    partial: Vec<u8>,
    /// Output that the socket did not take at once, from `sent` on.
    output: Vec<u8>,
    sent: usize,
    /// Memory for the next request head.
    head: RequestHead,
    /// By the place of their streams: replies to requests whose body has not arrived.
    replies: Vec<Option<Reply>>,
    /// Answers that the windows, or the output, did not take at once.
    unsent: Vec<(StreamKey, Rc<Whole>, usize)>,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            wire: http2::connection(true),
            partial: Vec::new(),
            output: Vec::new(),
            sent: 0,
            head: RequestHead::default(),
            replies: Vec::new(),
            unsent: Vec::new(),
        }
    }
}

impl Http2 {
    pub(super) fn is_sending(&self) -> bool {
        self.sent < self.output.len()
    }

    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        stream: &TcpStream,
        site: &mut Site<'_>,
    ) -> io::Result<()> {
        if self.partial.is_empty() {
            let done = self.events(bytes, stream, site)?;
            self.partial.extend_from_slice(&bytes[done..]);
        } else {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(bytes);
            let done = self.events(&partial, stream, site)?;
            partial.drain(..done);
            self.partial = partial;
        }
        self.send(stream)
    }

    /// Does what the bytes ask for; gives how many of them are done with.
    fn events(&mut self, bytes: &[u8], stream: &TcpStream, site: &mut Site<'_>) -> io::Result<usize> {
        let mut done = 0;
        loop {
            let (count, event) =
                self.wire.receive(&bytes[done..], Tick::default()).map_err(io::Error::other)?;
            done += count;
            match event {
                None => return Ok(done),
                Some(Event::Request { stream: key }) => {
                    let head = self.wire.take_request(&mut self.head);
                    let reply = site.reply(head, false, stream).ok_or(ErrorKind::NotFound)?;
                    self.go_on(key, reply)?;
                }
                Some(Event::Data { stream: key, bytes, .. }) => {
                    self.wire.consume(key, bytes.len());
                    let reply = self.replies.get_mut(key.index()).and_then(Option::take);
                    let mut reply = reply.ok_or(ErrorKind::InvalidData)?;
                    reply.take(bytes);
                    self.go_on(key, reply)?;
                }
                // Whoever asked has gone; others share the connection.
                Some(Event::Reset { stream: key, .. }) => {
                    self.replies.get_mut(key.index()).and_then(Option::take);
                    self.unsent.retain(|(unsent, ..)| *unsent != key);
                    self.wire.release(key);
                }
                Some(Event::TooLarge { .. }) => return Err(ErrorKind::InvalidData.into()),
                Some(_) => {}
            }
        }
    }

    /// Answers when all of the request has come.
    fn go_on(&mut self, key: StreamKey, reply: Reply) -> io::Result<()> {
        if !self.wire.has_received_all(key) {
            if self.replies.len() <= key.index() {
                self.replies.resize_with(key.index() + 1, || None);
            }
            self.replies[key.index()] = Some(reply);
            return Ok(());
        }
        let answer = reply.end().ok_or(ErrorKind::InvalidData)?;
        let view = ResponseView { head: &answer.head, bytes: &answer.bytes };
        let edits = ResponseEdits {
            headers: &[],
            body: BodyOut::Length,
            close: false,
            version: Version::Http11,
            method: Method::Get,
        };
        self.wire.send_response(key, view, &edits, false);
        let mut at = answer.head.end as usize;
        if !self.send_body(key, &answer, &mut at) {
            self.unsent.push((key, answer, at));
        }
        Ok(())
    }

    /// Sends what there is room for; whether it was all.
    fn send_body(&mut self, key: StreamKey, answer: &Whole, at: &mut usize) -> bool {
        let has_trailers = !answer.trailers.is_empty();
        loop {
            let sent = self.wire.send_data(key, &answer.bytes[*at..], !has_trailers);
            *at += sent;
            let is_whole = *at == answer.bytes.len();
            if has_trailers && is_whole {
                self.wire.send_trailers(key, answer.trailers);
            }
            if self.wire.has_sent_all(key) {
                self.wire.release(key);
                return true;
            }
            if sent == 0 {
                return false;
            }
        }
    }

    /// Sends what the socket takes. An error means the connection is over.
    pub(super) fn send(&mut self, mut stream: &TcpStream) -> io::Result<()> {
        loop {
            if !self.is_sending() {
                self.output.clear();
                self.sent = 0;
                for (key, answer, mut at) in std::mem::take(&mut self.unsent) {
                    if !self.send_body(key, &answer, &mut at) {
                        self.unsent.push((key, answer, at));
                    }
                }
                self.wire.take_output(&mut self.output);
            }
            if !self.is_sending() {
                return Ok(());
            }
            match stream.write(&self.output[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}
