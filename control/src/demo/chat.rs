//! The shop's chat: a WebSocket on which every message comes back, and both ends of it.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config, client_async};

/// What a browser would be told to open.
const CHAT: &str = "ws://shop.demo/chat";

/// Longest wait for a message to come back, and for a connection before it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Sends every message of one connection back, and counts them.
pub(super) async fn echo(stream: TcpStream, served: &AtomicU64) -> tungstenite::Result<()> {
    let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX));
    let mut socket = accept_async_with_config(stream, Some(config)).await?;
    while let Some(message) = socket.next().await {
        // Pings and a close are answered below us.
        if let message @ (Message::Text(_) | Message::Binary(_)) = message? {
            socket.send(message).await?;
            served.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Somebody who chats: over one connection, which is made at the first message and made again when it is gone.
#[derive(Debug)]
pub(super) struct Chatter {
    gateway: SocketAddr,
    socket: Option<WebSocketStream<TcpStream>>,
}

/// Why a message did not come back.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChatError {
    /// There is no connection.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// It is not, or no longer, a WebSocket.
    #[error("the WebSocket broke")]
    WebSocket(#[from] tungstenite::Error),
    /// Something else came back, or nothing ever will.
    #[error("what came back was not the message")]
    Other,
    /// It took too long.
    #[error("the message did not come back in time")]
    Timeout,
}

impl Chatter {
    pub(super) fn new(gateway: SocketAddr) -> Chatter {
        Chatter { gateway, socket: None }
    }

    /// Until the message came back.
    pub(super) async fn say(&mut self, text: &str) -> Result<(), ChatError> {
        // Taken: after a failure the next message begins anew.
        let kept = self.socket.take();
        let said = async {
            let mut socket = match kept {
                Some(socket) => socket,
                None => self.connect().await?,
            };
            socket.send(Message::text(text)).await?;
            match socket.next().await.transpose()? {
                Some(Message::Text(back)) if back.as_str() == text => Ok(socket),
                _ => Err(ChatError::Other),
            }
        };
        let said = tokio::time::timeout(TIMEOUT, said).await;
        self.socket = Some(said.map_err(|_| ChatError::Timeout)??);
        Ok(())
    }

    async fn connect(&self) -> Result<WebSocketStream<TcpStream>, ChatError> {
        let stream = TcpStream::connect(self.gateway).await.map_err(ChatError::Connect)?;
        stream.set_nodelay(true).map_err(ChatError::Connect)?;
        let (socket, _) = client_async(CHAT, stream).await?;
        Ok(socket)
    }
}
