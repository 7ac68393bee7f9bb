//! A name server that says of each name what it is told to (RFC 1035), over UDP and TCP.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::Duration,
};

/// What is said of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// These addresses, to be kept for so many seconds. More than fit into a datagram are only told over TCP.
    Addresses(Vec<Ipv4Addr>, u32),
    /// An answer of this code without any record: 2 SERVFAIL, 3 NXDOMAIN, 5 REFUSED; 0 is an empty answer.
    Code(u8),
    /// Nothing.
    Silence,
    /// That the answer is longer than a datagram; but nobody answers over TCP.
    Truncated,
    /// That it is another name for itself, over a second one.
    Loop,
    /// An address for another name, of 255 bytes, which points into itself.
    Forged,
    /// The answer to another question: its number is wrong.
    Foreign,
    /// Bytes that are no answer.
    Garbage,
}

/// Where the answers are told, and how often each name was asked for.
#[derive(Default)]
struct Shared {
    known: Mutex<HashMap<String, (Says, usize)>>,
    asked: Condvar,
}

/// A name server on this address of loopback.
pub(crate) struct NameServer(Arc<Shared>);

/// Addresses that fit into a datagram of 512 bytes.
const ADDRESSES_IN_DATAGRAM: usize = 20;

/// Types and the class of records.
const A: u16 = 1;
const CNAME: u16 = 5;
const INTERNET: u16 = 1;

impl NameServer {
    pub(crate) fn start(at: SocketAddr) -> NameServer {
        let shared = Arc::<Shared>::default();
        let (datagrams, udp) = (shared.clone(), UdpSocket::bind(at).expect("a network of our own"));
        thread::spawn(move || {
            let mut bytes = [0; 1500];
            while let Ok((count, from)) = udp.recv_from(&mut bytes) {
                if let Some(answer) = datagrams.answer(&bytes[..count], false) {
                    let _ = udp.send_to(&answer, from);
                }
            }
        });
        let (streams, tcp) = (shared.clone(), TcpListener::bind(at).expect("a network of our own"));
        thread::spawn(move || {
            for stream in tcp.incoming().map_while(Result::ok) {
                let streams = streams.clone();
                thread::spawn(move || streams.serve(stream));
            }
        });
        NameServer(shared)
    }

    /// Says this of a name from now on.
    pub(crate) fn say(&self, name: &str, says: Says) {
        let mut known = self.0.known();
        let asked = known.get(name).map_or(0, |(_, asked)| *asked);
        known.insert(name.to_owned(), (says, asked));
    }

    /// How often it was asked for a name; two questions, for two kinds of addresses, make one look-up.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.0.known().get(name).map_or(0, |(_, asked)| *asked)
    }

    /// Waits until it was asked for a name that often; whether it was.
    pub(crate) fn is_asked(&self, name: &str, count: usize, patience: Duration) -> bool {
        let is_missing = |known: &mut HashMap<String, (Says, usize)>| {
            known.get(name).is_none_or(|(_, asked)| *asked < count)
        };
        let waited = self.0.asked.wait_timeout_while(self.0.known(), patience, is_missing);
        !waited.expect("no server panics").1.timed_out()
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, HashMap<String, (Says, usize)>> {
        self.known.lock().expect("no server panics")
    }

    /// Each message behind its length.
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut bytes)?;
            let Some(answer) = self.answer(&bytes, true) else { return Ok(()) };
            let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
            stream.write_all(&[&length.to_be_bytes()[..], &answer].concat())?;
        }
    }

    fn answer(&self, query: &[u8], is_stream: bool) -> Option<Vec<u8>> {
        let (name, end) = question(query)?;
        let kind = u16::from_be_bytes([query[end - 4], query[end - 3]]);
        let says = {
            let mut known = self.known();
            let (says, asked) = known.entry(name).or_insert((Says::Code(3), 0));
            *asked += usize::from(!is_stream);
            says.clone()
        };
        self.asked.notify_all();
        let message = |code: u8, is_truncated: bool, records: &[Vec<u8>]| {
            let flags = [0x81 | u8::from(is_truncated) << 1, 0x80 | code];
            let count = u16::try_from(records.len()).unwrap_or(u16::MAX).to_be_bytes();
            // One question, the answers, and nothing else.
            let header = [&query[..2], &flags, &[0, 1], &count, &[0; 4]].concat();
            [header, query[12..end].to_vec(), records.concat()].concat()
        };
        // The name of the question, which stands behind the header.
        let own = [0xc0, 12];
        Some(match says {
            Says::Silence => return None,
            Says::Code(code) => message(code, false, &[]),
            Says::Truncated if is_stream => return None,
            Says::Truncated => message(0, true, &[]),
            Says::Garbage => [&query[..2], &[0xff; 100]].concat(),
            Says::Foreign => {
                let mut answer = message(0, false, &[address(&own, Ipv4Addr::new(127, 0, 0, 66), 1)]);
                answer[0] ^= 0xff;
                answer
            }
            Says::Loop => {
                let other = [&b"\x05other"[..], &own].concat();
                let there = record(&own, CNAME, 0, &other);
                message(0, false, &[there, record(&other, CNAME, 0, &own)])
            }
            Says::Forged => {
                // Four labels of 63 bytes fill all that a name may have, and then it begins again.
                let label = [&[63][..], &[b'x'; 63]].concat();
                let start = u16::try_from(end).unwrap_or_default() | 0xc000;
                let endless = [label.repeat(4), start.to_be_bytes().to_vec()].concat();
                message(0, false, &[address(&endless, Ipv4Addr::new(127, 0, 0, 66), 1)])
            }
            Says::Addresses(..) if kind != A => message(0, false, &[]),
            Says::Addresses(all, _) if all.len() > ADDRESSES_IN_DATAGRAM && !is_stream => {
                message(0, true, &[])
            }
            Says::Addresses(all, seconds) => {
                let records: Vec<_> = all.iter().map(|ip| address(&own, *ip, seconds)).collect();
                message(0, false, &records)
            }
        })
    }
}

/// The name that is asked for, and where the question ends.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*query.get(at)?);
        let label = query.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if label.is_empty() {
            query.get(at..at + 4)?;
            return Some((labels.join("."), at + 4));
        }
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
    }
}

fn address(name: &[u8], ip: Ipv4Addr, seconds: u32) -> Vec<u8> {
    record(name, A, seconds, &ip.octets())
}

fn record(name: &[u8], kind: u16, seconds: u32, of: &[u8]) -> Vec<u8> {
    let length = u16::try_from(of.len()).unwrap_or(u16::MAX);
    let middle = [kind.to_be_bytes(), INTERNET.to_be_bytes()].concat();
    [name, &middle, &seconds.to_be_bytes(), &length.to_be_bytes(), of].concat()
}
