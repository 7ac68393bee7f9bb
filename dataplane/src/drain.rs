//! When to stop, and when draining is over.

use std::{
    io::{self, Read},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

/// Pause between two looks at the connections that are left.
pub const LOOK: Duration = Duration::from_millis(10);

/// Whoever may tell this process to stop.
#[derive(Debug)]
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
    /// Gone after it spoke, and when nobody asked for it.
    stdin: Option<mpsc::Receiver<()>>,
}

impl Stop {
    /// Listens for SIGTERM and SIGINT, and for the end of standard input if asked to. Needs a tokio runtime.
    pub fn listen(on_stdin_eof: bool) -> io::Result<Stop> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let stdin = if on_stdin_eof { Some(watch_stdin()?) } else { None };
        Ok(Stop { terminate, interrupt, stdin })
    }

    /// Waits for the next word to stop.
    pub async fn wait(&mut self) {
        let ended = async {
            match &mut self.stdin {
                Some(stdin) => stdin.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = ended => self.stdin = None,
        }
    }
}

/// A thread of its own, since a read of standard input cannot be taken back.
fn watch_stdin() -> io::Result<mpsc::Receiver<()>> {
    let (ended, watched) = mpsc::channel(1);
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut thrown_away = [0; 256];
        let mut stdin = io::stdin().lock();
        while matches!(stdin.read(&mut thrown_away), Ok(count) if count > 0) {}
        let _ = ended.blocking_send(());
    })?;
    Ok(watched)
}

/// Whether nothing is left to wait for.
pub fn is_over(connections: u64, until: Instant, now: Instant) -> bool {
    connections == 0 || now >= until
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_ends_with_the_last_connection_or_when_the_time_is_up() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        for (connections, until, over) in [(0, later, true), (1, later, false), (1, now, true)] {
            assert_eq!(is_over(connections, until, now), over, "{connections}");
        }
    }
}
