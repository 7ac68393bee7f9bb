//! Bytes without HTTP: UP-10. More seeds and a clock of its own are among the stories of tcp.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::mpsc::channel,
};

use crate::{
    ledger::{Unsafe, Verdict},
    recorder::reset,
    trial::Trials,
};

/// Frames of one conversation.
const FRAMES: usize = 10_000;

/// Each way ends for itself; a reset goes through; whoever speaks first is heard.
pub(crate) fn passthrough(trials: &mut Trials<'_>) {
    for _ in 0..20 {
        trial(trials, "FIN from the client first", client_ends_first);
        trial(trials, "FIN from the origin first", origin_ends_first);
        trial(trials, "an origin that speaks first", origin_speaks_first);
        trial(trials, "RST from the client", client_resets);
        trial(trials, "RST from the origin", origin_resets);
    }
    trial(trials, "10,000 frames", frames);
}

/// What of it is not as it should be.
type Outcome = io::Result<Option<(Unsafe, String)>>;

fn trial(trials: &mut Trials<'_>, name: &str, run: fn(&Trials<'_>, TcpStream) -> Outcome) {
    let mut verdict = Verdict::default();
    let Some(address) = trials.subject.tcp else { return };
    let client = TcpStream::connect(address).and_then(|client| {
        client.set_nodelay(true)?;
        client.set_read_timeout(Some(trials.subject.patience))?;
        run(trials, client)
    });
    match client {
        Ok(found) => verdict.found.extend(found),
        Err(error) => verdict.found.push((Unsafe::Lost, error.to_string())),
    }
    trials.tally.count(name, verdict);
}

/// As many bytes as fill every buffer on the way, none like its neighbours.
fn many() -> Vec<u8> {
    (0..1_u32 << 18).flat_map(u32::to_le_bytes).collect()
}

fn differs(what: &str, got: &[u8], expected: &[u8]) -> Option<(Unsafe, String)> {
    (got != expected)
        .then(|| (Unsafe::Truncated, format!("{what}: {} bytes of {}", got.len(), expected.len())))
}

fn client_ends_first(trials: &Trials<'_>, mut client: TcpStream) -> Outcome {
    trials.world.tcp.script(|mut origin| {
        let mut bytes = Vec::new();
        origin.read_to_end(&mut bytes)?;
        // All of it, after the other way has ended.
        origin.write_all(&bytes)
    });
    let sent = many();
    client.write_all(&sent)?;
    client.shutdown(Shutdown::Write)?;
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes)?;
    Ok(differs("the echo behind a FIN", &bytes, &sent))
}

fn origin_ends_first(trials: &Trials<'_>, mut client: TcpStream) -> Outcome {
    let (arrived, what_arrived) = channel();
    trials.world.tcp.script(move |mut origin| {
        origin.write_all(&many())?;
        origin.shutdown(Shutdown::Write)?;
        let mut bytes = Vec::new();
        origin.read_to_end(&mut bytes)?;
        // Nobody asks for it any more when the trial has failed.
        let _ = arrived.send(bytes);
        Ok(())
    });
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes)?;
    let sent = many();
    client.write_all(&sent)?;
    client.shutdown(Shutdown::Write)?;
    let arrived = what_arrived.recv_timeout(trials.subject.patience).unwrap_or_default();
    Ok(differs("bytes before a FIN", &bytes, &sent)
        .or_else(|| differs("bytes against a FIN", &arrived, &sent)))
}

fn origin_speaks_first(trials: &Trials<'_>, mut client: TcpStream) -> Outcome {
    trials.world.tcp.script(|mut origin| {
        origin.write_all(b"220 ready\r\n")?;
        let mut line = [0; 6];
        origin.read_exact(&mut line)?;
        origin.write_all(&line)
    });
    let mut banner = [0; 11];
    client.read_exact(&mut banner)?;
    client.write_all(b"HELO\r\n")?;
    let mut line = [0; 6];
    client.read_exact(&mut line)?;
    Ok(differs("the banner", &banner, b"220 ready\r\n").or_else(|| differs("the line", &line, b"HELO\r\n")))
}

fn client_resets(trials: &Trials<'_>, mut client: TcpStream) -> Outcome {
    let (ended, how) = channel();
    trials.world.tcp.script(move |mut origin| {
        let mut byte = [0; 1];
        origin.read_exact(&mut byte)?;
        origin.write_all(&byte)?;
        let _ = ended.send(origin.read(&mut byte).map_err(|error| error.kind()));
        Ok(())
    });
    client.write_all(b"x")?;
    client.read_exact(&mut [0; 1])?;
    reset(&client)?;
    drop(client);
    Ok(is_reset("the origin", how.recv_timeout(trials.subject.patience).ok()))
}

fn origin_resets(trials: &Trials<'_>, mut client: TcpStream) -> Outcome {
    trials.world.tcp.script(|mut origin| {
        origin.read_exact(&mut [0; 1])?;
        reset(&origin)
    });
    client.write_all(b"x")?;
    let end = client.read(&mut [0; 1]).map_err(|error| error.kind());
    Ok(is_reset("the client", Some(end)))
}

/// A reset that arrives as FIN tells a part as the whole.
fn is_reset(who: &str, end: Option<Result<usize, io::ErrorKind>>) -> Option<(Unsafe, String)> {
    match end {
        Some(Err(io::ErrorKind::ConnectionReset)) => None,
        Some(Ok(0)) => Some((Unsafe::Truncated, format!("{who} got FIN in place of RST"))),
        other => Some((Unsafe::Lost, format!("{who} got {other:?} in place of RST"))),
    }
}

fn frames(trials: &Trials<'_>, mut client: TcpStream) -> Outcome {
    trials.world.tcp.script(|mut origin| {
        origin.set_nodelay(true)?;
        let mut frame = [0; 64];
        for _ in 0..FRAMES {
            origin.read_exact(&mut frame)?;
            frame.reverse();
            origin.write_all(&frame)?;
        }
        Ok(())
    });
    for n in 0..FRAMES {
        let mut frame = [(n % 251) as u8; 64];
        frame[0] = (n % 241) as u8;
        client.write_all(&frame)?;
        let mut back = [0; 64];
        client.read_exact(&mut back)?;
        back.reverse();
        if let Some(found) = differs(&format!("frame {n}"), &back, &frame) {
            return Ok(Some((Unsafe::Crossed, found.1)));
        }
    }
    Ok(None)
}
