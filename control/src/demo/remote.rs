//! How a second `ringway` on this machine tells the running demo to give a lesson, and hears what happens.
//!
//! An abstract unix socket named after the user and the folder for temporary files: it is found without arguments, ends
//! with the process and leaves no file. One line of question; each line of the answer begins with `:`, an error with `!`.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use rustix::process::geteuid;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use xxhash_rust::xxh3::xxh3_64;

use super::lesson::{Lesson, LessonError, UnknownLesson, Words};

/// Longest question, in bytes.
const QUESTION_BYTES_MAX: u64 = 256;

/// Longest wait for a question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// A lesson that somebody wants.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) lesson: Lesson,
    /// Takes what happens, line by line.
    pub(super) words: Words,
    /// Takes how it ended.
    pub(super) ended: oneshot::Sender<Result<(), LessonError>>,
}

/// Why the running demo did not give the lesson.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// There is none, or it ended.
    #[error("no demo runs here; start one with `ringway demo` in another terminal")]
    NoDemo(#[source] io::Error),
    /// It broke off.
    #[error("the demo ended before the lesson did")]
    Ended,
    /// It said why.
    #[error("{0}")]
    Refused(String),
}

/// Makes this process the user's demo. An error of kind `AddrInUse` means that there is one.
pub(super) fn listen() -> io::Result<tokio::net::UnixListener> {
    let listener = UnixListener::bind_addr(&address()?)?;
    listener.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(listener)
}

/// Hears requests until it is dropped.
pub(super) async fn serve(listener: tokio::net::UnixListener, requests: mpsc::Sender<Request>) {
    loop {
        if let Ok((stream, _)) = listener.accept().await
            // Anybody on the machine can connect to an abstract socket.
            && stream.peer_cred().is_ok_and(|peer| peer.uid() == geteuid().as_raw())
        {
            let requests = requests.clone();
            // Whoever asked may go away; the lesson goes on.
            tokio::spawn(async move { answer(stream, requests).await.unwrap_or_default() });
        }
    }
}

async fn answer(stream: tokio::net::UnixStream, requests: mpsc::Sender<Request>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut question = String::new();
    let mut reader = tokio::io::BufReader::new(reader).take(QUESTION_BYTES_MAX);
    tokio::time::timeout(QUESTION_TIMEOUT, reader.read_line(&mut question)).await??;
    let lesson = match question.trim_end().parse::<Lesson>() {
        Ok(lesson) => lesson,
        Err(error @ UnknownLesson) => return writer.write_all(format!("!{error}\n").as_bytes()).await,
    };
    let (words, mut said) = mpsc::unbounded_channel();
    let (ended, end) = oneshot::channel();
    if requests.try_send(Request { lesson, words, ended }).is_err() {
        return writer.write_all(b"!another lesson is being given\n").await;
    }
    while let Some(line) = said.recv().await {
        writer.write_all(format!(":{line}\n").as_bytes()).await?;
    }
    match end.await {
        Ok(Ok(())) => writer.write_all(b":\n").await,
        Ok(Err(error)) => writer.write_all(format!("!{}\n", error.with_causes()).as_bytes()).await,
        Err(_) => Ok(()),
    }
}

/// Asks the running demo for a lesson and says what it says.
pub fn ask(lesson: Lesson, mut say: impl FnMut(&str)) -> Result<(), RemoteError> {
    let connected = address().and_then(|address| UnixStream::connect_addr(&address));
    let mut stream = connected.map_err(RemoteError::NoDemo)?;
    stream.write_all(format!("{}\n", lesson.name()).as_bytes()).map_err(RemoteError::NoDemo)?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(|_| RemoteError::Ended)?;
        match line.split_at_checked(1) {
            // An empty line says that it ended well.
            Some((":", "")) => return Ok(()),
            Some((":", words)) => say(words),
            Some((_, reason)) => return Err(RemoteError::Refused(reason.to_owned())),
            None => {}
        }
    }
    Err(RemoteError::Ended)
}

fn address() -> io::Result<SocketAddr> {
    // A name has 107 bytes at most, a path may have more.
    let folder = xxh3_64(std::env::temp_dir().as_os_str().as_bytes());
    SocketAddr::from_abstract_name(format!("ringway/demo/{}/{folder:016x}", geteuid().as_raw()))
}
