//! What is asked and answered, whichever HTTP says it; and a client for either.

use std::{future::poll_fn, net::SocketAddr};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    http1::{BodyReader, Message, response_head},
    support::soon,
};

/// Header lines or trailers.
pub(crate) type Lines = Vec<(String, String)>;

/// A request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) body: Bytes,
    pub(crate) trailers: Lines,
}

/// A response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) interim: Vec<u16>,
    pub(crate) status: u16,
    pub(crate) headers: Lines,
    pub(crate) body: Bytes,
    pub(crate) trailers: Lines,
}

impl Ask {
    pub(crate) fn get(path: &str) -> Ask {
        Ask { method: "GET", path: path.to_owned(), ..Ask::default() }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

/// Asks over a connection of its own.
pub(crate) async fn ask(address: SocketAddr, is_http2: bool, ask: &Ask) -> Answer {
    let what = format!("the answer to {} {}", ask.method, ask.path);
    if !is_http2 {
        return soon(&what, ask_http1(address, ask)).await;
    }
    let requests = connect(address).await;
    soon(&what, ask_over(requests, ask)).await.unwrap_or_else(|error| panic!("{what}: {error}"))
}

async fn ask_http1(address: SocketAddr, ask: &Ask) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let Ask { method, path, body, trailers } = ask;
    let framing = match (body.is_empty(), trailers.is_empty()) {
        (_, false) => "transfer-encoding: chunked\r\n".to_owned(),
        (true, true) => String::new(),
        (false, true) => format!("content-length: {}\r\n", body.len()),
    };
    let head = format!("{method} {path} HTTP/1.1\r\nhost: a\r\nte: trailers\r\n{framing}\r\n");
    let (mut receiving, mut sending) = stream.split();
    let send = async {
        sending.write_all(head.as_bytes()).await.unwrap();
        sending.write_all(&http1_body(body, trailers)).await.unwrap();
    };
    let receive = async {
        let mut answer = Answer::default();
        let mut bytes = Vec::new();
        let mut at = 0;
        let head = loop {
            match response_head(&bytes[at..]).unwrap() {
                Some((head, end)) => {
                    at += end;
                    if head.status() >= 200 {
                        break head;
                    }
                    answer.interim.push(head.status());
                }
                None => assert!(receiving.read_buf(&mut bytes).await.unwrap() > 0, "no response"),
            }
        };
        let mut reader = BodyReader::new(head.response_framing(method).unwrap());
        let mut message = Message { head, ..Message::default() };
        while !reader.read(&bytes, &mut at, &mut message).unwrap() {
            assert!(receiving.read_buf(&mut bytes).await.unwrap() > 0, "half a response");
        }
        answer.status = message.head.status();
        answer.headers = lines(&message.head.headers);
        answer.body = message.body.into();
        answer.trailers = lines(&message.trailers);
        answer
    };
    tokio::join!(send, receive).1
}

/// A body as HTTP/1.1 has it: in chunks when trailers follow.
pub(crate) fn http1_body(body: &[u8], trailers: &Lines) -> Vec<u8> {
    if trailers.is_empty() {
        return body.to_vec();
    }
    let mut bytes = Vec::new();
    for part in body.chunks(100_000) {
        bytes.extend(format!("{:x}\r\n", part.len()).bytes());
        bytes.extend(part);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n");
    trailers.iter().for_each(|(name, value)| bytes.extend(format!("{name}: {value}\r\n").bytes()));
    bytes.extend(b"\r\n");
    bytes
}

/// As [`Lines`], with small letters.
pub(crate) fn lines(lines: &[(Vec<u8>, Vec<u8>)]) -> Lines {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    lines.iter().map(|(name, value)| (text(name).to_ascii_lowercase(), text(value))).collect()
}

/// A connection that speaks HTTP/2.
pub(crate) async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    // How it ends is seen by its streams.
    tokio::spawn(async { drop(connection.await) });
    requests
}

/// Asks over a connection that speaks HTTP/2.
pub(crate) async fn ask_over(requests: SendRequest<Bytes>, ask: &Ask) -> Result<Answer, h2::Error> {
    let mut requests = requests.ready().await?;
    let uri = format!("http://a{}", ask.path);
    let mut request = Request::builder().method(ask.method).uri(uri).header("te", "trailers");
    let ends = ask.body.is_empty() && ask.trailers.is_empty();
    if !ask.body.is_empty() && ask.trailers.is_empty() {
        request = request.header("content-length", ask.body.len());
    }
    let (response, stream) = requests.send_request(request.body(()).unwrap(), ends)?;
    // As long as a clone is there, the connection is.
    drop(requests);
    let send = async {
        // It may be answered before all of it is taken.
        if !ends {
            let _ = send_body(stream, ask.body.clone(), &ask.trailers).await;
        }
    };
    tokio::join!(send, receive(response)).1
}

async fn receive(mut response: ResponseFuture) -> Result<Answer, h2::Error> {
    let mut interim = Vec::new();
    while let Some(head) = poll_fn(|cx| response.poll_informational(cx)).await {
        interim.push(head?.status().as_u16());
    }
    let (head, body) = response.await?.into_parts();
    let (body, trailers) = read_body(body).await?;
    let headers = header_lines(&head.headers);
    Ok(Answer { interim, status: head.status.as_u16(), headers, body, trailers })
}

/// Receives a body to its end.
pub(crate) async fn read_body(mut stream: RecvStream) -> Result<(Bytes, Lines), h2::Error> {
    let mut body = Vec::new();
    while let Some(bytes) = stream.data().await {
        let bytes = bytes?;
        body.extend(&bytes);
        stream.flow_control().release_capacity(bytes.len())?;
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    Ok((body.into(), header_lines(&trailers)))
}

/// Sends a body, and the end.
pub(crate) async fn send_body(
    mut stream: SendStream<Bytes>,
    mut body: Bytes,
    trailers: &Lines,
) -> Result<(), h2::Error> {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let Some(room) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return Ok(()) };
        let part = body.split_to(room?.min(body.len()));
        stream.send_data(part, body.is_empty() && trailers.is_empty())?;
    }
    match trailers.is_empty() {
        true => Ok(()),
        false => stream.send_trailers(header_map(trailers)),
    }
}

fn header_lines(headers: &HeaderMap) -> Lines {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

pub(crate) fn header_map(lines: &Lines) -> HeaderMap {
    let one = |(name, value): &(String, String)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    lines.iter().map(one).collect()
}
