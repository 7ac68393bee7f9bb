//! An origin that does what the last part of a path says, and speaks HTTP/1.1 on one port and HTTP/2 on another.

use std::{net::SocketAddr, sync::LazyLock};

use bytes::Bytes;
use h2::server::SendResponse;
use http::{Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    ask::{Answer, Ask, header_map, http1_body, lines, read_body, send_body},
    http1::{BodyReader, Message, request_head},
};

/// Bytes of a large body: many windows, many buffers, and not a multiple of anything.
pub(crate) const LARGE_BYTES: usize = 3_000_001;

/// That many bytes of which none repeats the one a block before it.
pub(crate) fn large() -> Bytes {
    static LARGE: LazyLock<Bytes> =
        LazyLock::new(|| (0..LARGE_BYTES).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect());
    LARGE.clone()
}

/// The addresses of one that speaks HTTP/1.1 and of one that speaks HTTP/2.
pub(crate) async fn start() -> [SocketAddr; 2] {
    let (http1, http2) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let addresses = [http1.local_addr().unwrap(), http2.local_addr().unwrap()];
    tokio::spawn(async move {
        while let Ok((stream, _)) = http1.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve_http1(stream));
        }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = http2.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve_http2(stream));
        }
    });
    addresses
}

/// What the origin answers.
pub(crate) fn answer(ask: &Ask) -> Answer {
    let text = |text: &'static str| Answer { status: 200, body: text.into(), ..Answer::default() };
    let line = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    match ask.path.rsplit('/').next().unwrap_or_default() {
        "echo" => Answer {
            status: 200,
            body: ask.body.clone(),
            trailers: ask.trailers.clone(),
            ..Answer::default()
        },
        "large" => Answer { status: 200, body: large(), ..Answer::default() },
        "early" => Answer { interim: vec![103], ..text("late") },
        "trailers-only" => Answer { status: 200, trailers: line("grpc-status", "12"), ..Answer::default() },
        "204" => Answer { status: 204, ..Answer::default() },
        "304" => Answer { status: 304, headers: line("etag", "\"e\""), ..Answer::default() },
        _ => text("hello"),
    }
}

async fn serve_http1(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    while let Some(()) = exchange_http1(&mut stream, &mut bytes).await {}
}

async fn exchange_http1(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let (head, mut at) = loop {
        match request_head(bytes).expect("a proxy sends well-formed heads") {
            Some(found) => break found,
            None if stream.read_buf(bytes).await.ok()? == 0 => return None,
            None => {}
        }
    };
    let mut reader = BodyReader::new(head.request_framing().expect("checked"));
    let mut message = Message { head, ..Message::default() };
    while !reader.read(bytes, &mut at, &mut message).expect("a proxy sends well-formed bodies") {
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
    bytes.drain(..at);
    let [method, path, _] = message.head.first.map(|word| String::from_utf8_lossy(&word).into_owned());
    let trailers = lines(&message.trailers);
    let answer = answer(&Ask { method: "", path, body: message.body.into(), trailers });
    let Answer { interim, status, headers, body, trailers } = &answer;
    let mut text = String::new();
    interim.iter().for_each(|status| text += &format!("HTTP/1.1 {status} Early\r\nlink: </a>\r\n\r\n"));
    text += &format!("HTTP/1.1 {status} Final\r\n");
    headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
    match status {
        204 | 304 => {}
        _ if !trailers.is_empty() => text += "transfer-encoding: chunked\r\n",
        _ => text += &format!("content-length: {}\r\n", body.len()),
    }
    text += "\r\n";
    stream.write_all(text.as_bytes()).await.ok()?;
    if method != "HEAD" {
        stream.write_all(&http1_body(body, trailers)).await.ok()?;
    }
    Some(())
}

async fn serve_http2(stream: TcpStream) {
    let mut builder = h2::server::Builder::new();
    // Clients that leave reset what they asked for, and their resets arrive here on one connection: no attack.
    builder.max_pending_accept_reset_streams(10_000);
    let Ok(mut connection) = builder.handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(async {
            // The proxy may have given the stream up.
            drop(exchange_http2(request, respond).await);
        });
    }
}

/// Answers one request.
pub(crate) async fn exchange_http2(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let (head, body) = request.into_parts();
    let (body, trailers) = read_body(body).await?;
    let is_head = head.method == "HEAD";
    let answer = answer(&Ask { method: "", path: head.uri.path().to_owned(), body, trailers });
    for status in answer.interim {
        respond.send_informational(
            Response::builder().status(status).header("link", "</a>").body(()).unwrap(),
        )?;
    }
    let mut response = Response::builder().status(answer.status);
    if !matches!(answer.status, 204 | 304) && answer.trailers.is_empty() {
        response = response.header("content-length", answer.body.len());
    }
    let mut response = response.body(()).unwrap();
    response.headers_mut().extend(header_map(&answer.headers));
    let ends = is_head || answer.body.is_empty() && answer.trailers.is_empty();
    let stream = respond.send_response(response, ends)?;
    match ends {
        true => Ok(()),
        false => send_body(stream, answer.body, &answer.trailers).await,
    }
}
