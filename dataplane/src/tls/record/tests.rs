//! Our records with rustls's own connections at the other end, and with our own for what rustls never sends.

use std::io::{self, Read, Write};

use rustls::Connection;

use super::*;
use crate::tls::tests::{
    Configs, ROLES, Role, both_ours, configs, of_each_version, shake_hands, suites, tls13,
};

/// Our end of a connection, and rustls's.
struct Pair {
    ours: Records,
    theirs: Connection,
    /// What came from there and is not opened.
    received: Vec<u8>,
}

/// What came of opening all that there was.
#[derive(PartialEq, Eq, Debug)]
enum Then {
    WantsMore,
    Closed,
    Fails(String),
}

/// Opens record after record; takes away what is opened.
fn open_all(records: &mut Records, received: &mut Vec<u8>) -> (Vec<u8>, Then) {
    let mut data = Vec::new();
    loop {
        let is_whole = Records::is_whole(received);
        match records.open(received) {
            Ok(Opened::Partial) => {
                assert!(!is_whole);
                return (data, Then::WantsMore);
            }
            Ok(Opened::Data { payload, length }) => {
                assert!(is_whole);
                data.extend_from_slice(payload);
                received.drain(..length);
            }
            Ok(Opened::Closed) => return (data, Then::Closed),
            Err(error) => return (data, Then::Fails(error.to_string())),
        }
    }
}

fn seal(records: &mut Records, payload: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    payload.chunks(PLAINTEXT_BYTES_MAX).for_each(|of| records.seal(&[of], &mut sealed).unwrap());
    if payload.is_empty() {
        records.seal(&[], &mut sealed).unwrap();
    }
    sealed
}

impl Pair {
    fn new(role: Role, configs: &Configs) -> Pair {
        let mut theirs = configs.theirs(role);
        let (ours, received) = shake_hands(configs.ours(role), &mut theirs);
        Pair { ours, theirs, received }
    }

    /// What they send, sealed.
    fn they_send(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::new();
        for piece in payload.chunks(32 * 1024) {
            self.theirs.writer().write_all(piece).unwrap();
            self.they_flush(&mut sealed);
        }
        sealed
    }

    fn they_flush(&mut self, sealed: &mut Vec<u8>) {
        while self.theirs.wants_write() {
            self.theirs.write_tls(sealed).unwrap();
        }
    }

    /// What they read of what we sealed.
    fn they_read(&mut self, mut sealed: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut data = Vec::new();
        while !sealed.is_empty() {
            self.theirs.read_tls(&mut sealed).unwrap();
            self.theirs.process_new_packets()?;
            let mut piece = [0; 4096];
            loop {
                match self.theirs.reader().read(&mut piece) {
                    Ok(0) => break,
                    Ok(count) => data.extend_from_slice(&piece[..count]),
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        break;
                    }
                }
            }
        }
        Ok(data)
    }

    /// Payloads of these sizes arrive both ways.
    fn carries(&mut self, sizes: &[usize]) {
        for (turn, size) in sizes.iter().enumerate() {
            let payload: Vec<u8> = (0..*size).map(|at| (at * 7 + turn) as u8).collect();
            let sealed = seal(&mut self.ours, &payload);
            assert!(self.they_read(&sealed).unwrap() == payload, "{size} bytes from us");
            let sealed = self.they_send(&payload);
            self.received.extend(sealed);
            let (data, then) = open_all(&mut self.ours, &mut self.received);
            assert!(data == payload && then == Then::WantsMore, "{size} bytes from them: {then:?}");
            assert!(self.received.is_empty());
        }
    }
}

#[test]
fn every_suite_carries_payloads_of_every_size_in_both_roles() {
    for suite in suites() {
        let configs = configs(suite);
        for role in ROLES {
            let mut pair = Pair::new(role, &configs);
            pair.carries(&[0, 1, 2, 16_383, 16_384, 16_385, 100_000, 1]);
        }
    }
}

#[test]
fn a_record_is_opened_when_it_is_whole_and_not_before() {
    for suite in of_each_version() {
        for role in ROLES {
            let mut pair = Pair::new(role, &configs(suite));
            assert_eq!(open_all(&mut pair.ours, &mut pair.received), (Vec::new(), Then::WantsMore));
            let sealed = [pair.they_send(b"hello"), pair.they_send(b"world")].concat();
            let first = HEADER_BYTES + header_of(&sealed).unwrap().1;
            let (mut got, mut received) = (Vec::new(), Vec::new());
            for (at, byte) in sealed.iter().enumerate() {
                received.push(*byte);
                let (data, then) = open_all(&mut pair.ours, &mut received);
                assert_eq!(then, Then::WantsMore);
                assert!(data.is_empty() || at + 1 == first || at + 1 == sealed.len(), "{at}");
                got.extend(data);
            }
            assert_eq!(got, b"helloworld");
        }
    }
}

#[test]
fn chunks_go_in_one_record() {
    let mut pair = Pair::new(Role::Server, &configs(tls13()));
    let mut sealed = Vec::new();
    pair.ours.seal(&[b"a", b"", b"bc", b"def"], &mut sealed).unwrap();
    assert_eq!(HEADER_BYTES + header_of(&sealed).unwrap().1, sealed.len());
    assert_eq!(pair.they_read(&sealed).unwrap(), b"abcdef");
}

#[test]
fn keys_change_as_either_end_wishes() {
    for role in ROLES {
        let mut pair = Pair::new(role, &configs(tls13()));
        for turn in 0..5 {
            // They ask for new keys of ours in return.
            pair.theirs.refresh_traffic_keys().unwrap();
            let sealed = pair.they_send(b"new");
            pair.received.extend(sealed);
            assert_eq!(open_all(&mut pair.ours, &mut pair.received).0, b"new", "{turn}");
            assert!(pair.ours.owes_key_update);
            pair.carries(&[1, 20_000]);
            assert!(!pair.ours.owes_key_update);
            // Ours are used up.
            pair.ours.key_records_max = pair.ours.sent;
            let before = pair.ours.sent;
            pair.carries(&[1]);
            assert!(before > 1 && pair.ours.sent == 1);
            pair.ours.key_records_max = KEY_RECORDS_MAX;
        }
    }
}

#[test]
fn nobody_is_asked_for_new_keys_and_asked_back_for_ever() {
    let (mut server, mut client) = both_ours(tls13());
    server.key_records_max = server.sent;
    let mut sealed = seal(&mut server, b"a");
    assert_eq!(open_all(&mut client, &mut sealed).0, b"a");
    assert!(!client.owes_key_update);
}

#[test]
fn a_key_of_tls_12_that_is_used_up_ends_the_connection() {
    for role in ROLES {
        let mut pair = Pair::new(role, &configs(of_each_version()[1]));
        pair.carries(&[1]);
        pair.ours.key_records_max = pair.ours.sent + 1;
        pair.carries(&[1]);
        let mut out = Vec::new();
        assert!(pair.ours.seal(&[b"a"], &mut out).is_err() && out.is_empty());
        pair.ours.seal_close(&mut out).unwrap();
        assert!(pair.they_read(&out).unwrap().is_empty());
    }
}

#[test]
fn a_client_takes_tickets_and_comes_again_with_one() {
    for suite in of_each_version() {
        let mut configs = configs(suite);
        configs.server.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
        configs.server.send_tls13_tickets = 3;
        // A ticket is longer than a record then.
        for max in [None, Some(64)] {
            configs.server.max_fragment_size = max;
            let mut first = Pair::new(Role::Client, &configs);
            first.carries(&[1]);
            let second = Pair::new(Role::Client, &configs);
            assert_eq!(
                second.theirs.handshake_kind(),
                Some(rustls::HandshakeKind::Resumed),
                "{suite:?} {max:?}"
            );
        }
    }
}

#[test]
fn an_end_is_told_both_ways() {
    for suite in of_each_version() {
        for role in ROLES {
            let mut pair = Pair::new(role, &configs(suite));
            let mut sealed = pair.they_send(b"last");
            pair.theirs.send_close_notify();
            pair.they_flush(&mut sealed);
            pair.received.extend(sealed);
            assert_eq!(open_all(&mut pair.ours, &mut pair.received), (b"last".to_vec(), Then::Closed));
            // We may go on.
            let mut sealed = seal(&mut pair.ours, b"more");
            pair.ours.seal_close(&mut sealed).unwrap();
            pair.theirs.read_tls(&mut &sealed[..]).unwrap();
            assert!(pair.theirs.process_new_packets().unwrap().peer_has_closed());
            let mut got = Vec::new();
            pair.theirs.reader().read_to_end(&mut got).unwrap();
            assert_eq!(got, b"more");
        }
    }
}

#[test]
fn a_record_that_was_changed_is_not_opened_and_neither_is_what_comes_behind() {
    for suite in of_each_version() {
        let configs = configs(suite);
        for role in ROLES {
            let length = Pair::new(role, &configs).they_send(b"hello").len();
            for at in 0..length {
                let mut pair = Pair::new(role, &configs);
                open_all(&mut pair.ours, &mut pair.received);
                let mut sealed = pair.they_send(b"hello");
                sealed[at] ^= 0x40;
                sealed.extend(pair.they_send(b"again"));
                let (data, then) = open_all(&mut pair.ours, &mut sealed);
                // Two bytes of version say nothing (RFC 8446 §5.1); in TLS 1.2 they are under the seal as they must be.
                match at {
                    1 | 2 => assert_eq!(data, b"helloagain"),
                    _ => assert!(data.is_empty() && then != Then::Closed, "{at}: {then:?}"),
                }
            }
        }
    }
}

#[test]
fn a_record_is_opened_once_and_in_its_place() {
    for suite in of_each_version() {
        let mut pair = Pair::new(Role::Server, &configs(suite));
        open_all(&mut pair.ours, &mut pair.received);
        let first = pair.they_send(b"a");
        let mut twice = [&first[..], &first].concat();
        let (data, then) = open_all(&mut pair.ours, &mut twice);
        assert!(data == b"a" && matches!(then, Then::Fails(_)));
    }
}

#[test]
fn a_length_beyond_the_bound_is_refused_before_the_bytes_are_there() {
    for suite in of_each_version() {
        for (length, expected) in
            [(SEALED_BYTES_MAX, Then::WantsMore), (SEALED_BYTES_MAX + 1, fails_too_long()), (65_535, huge())]
        {
            let mut pair = Pair::new(Role::Server, &configs(suite));
            let [high, low] = (length as u16).to_be_bytes();
            let mut header = vec![23, 3, 3, high, low];
            assert_eq!(Records::is_whole(&header), expected != Then::WantsMore);
            match pair.ours.open(&mut header) {
                Ok(Opened::Partial) => assert_eq!(expected, Then::WantsMore),
                Err(error) => assert_eq!(expected, Then::Fails(error.to_string())),
                Ok(other) => panic!("{other:?}"),
            }
        }
    }
}

fn fails_too_long() -> Then {
    Then::Fails(RecordError::TooLong(SEALED_BYTES_MAX + 1).to_string())
}

fn huge() -> Then {
    Then::Fails(RecordError::TooLong(65_535).to_string())
}

/// One byte more than may be in a record, well sealed.
#[test]
fn a_payload_beyond_the_bound_is_refused() {
    for suite in of_each_version() {
        let (mut server, mut client) = both_ours(suite);
        let mut sealed = Vec::new();
        client.seal(&[&[0; PLAINTEXT_BYTES_MAX + 1]], &mut sealed).unwrap();
        assert!(matches!(server.open(&mut sealed), Err(RecordError::Tls(_) | RecordError::TooLong(_))));
    }
}

/// What the other end seals as a record of a type, on a connection of its own.
fn after(suite: SupportedCipherSuite, records: &[(ContentType, &[u8])]) -> (Vec<u8>, Then) {
    let (mut server, mut client) = both_ours(suite);
    let mut sealed = Vec::new();
    for (typ, payload) in records {
        client.seal_as(*typ, &[payload], &mut sealed).unwrap();
    }
    open_all(&mut server, &mut sealed)
}

#[test]
fn what_has_no_place_after_the_handshake_ends_the_connection() {
    let unexpected = || Then::Fails(RecordError::Unexpected.to_string());
    let [tls13, tls12] = of_each_version();
    use ContentType::{Alert, ApplicationData, ChangeCipherSpec, Handshake, Heartbeat};
    let ticket = [4, 0, 0, 0];
    let hello_request = [0, 0, 0, 0];
    let key_update = |asks| [24, 0, 0, 1, asks];
    for (suite, typ, payload) in [
        (tls13, Handshake, &[][..]),
        (tls13, Handshake, &ticket),
        (tls13, Handshake, &hello_request),
        (tls13, Handshake, &[1, 0, 0, 1, 0]),
        (tls13, Handshake, &[13, 0, 0, 0]),
        (tls13, Handshake, &[99, 0, 0, 0]),
        (tls13, Handshake, &key_update(2)),
        (tls13, Handshake, &[24, 0, 0, 0]),
        (tls13, Handshake, &[24, 0, 0, 2, 0, 0]),
        (tls13, Handshake, &[24, 0, 0, 1, 0, 24]),
        (tls13, Heartbeat, &[1, 0, 0]),
        (tls13, Alert, &[]),
        (tls13, Alert, &[1]),
        (tls13, Alert, &[1, 0, 0]),
        (tls12, Handshake, &hello_request),
        (tls12, Handshake, &[1, 0, 0, 1, 0]),
        (tls12, Handshake, &key_update(0)),
        (tls12, ChangeCipherSpec, &[1]),
        (tls12, Heartbeat, &[1, 0, 0]),
    ] {
        let got = after(suite, &[(typ, payload)]);
        assert_eq!(got, (Vec::new(), unexpected()), "{typ:?} {payload:?}");
    }
    // In TLS 1.3, rustls knows its own word for that one.
    let (data, then) = after(tls13, &[(ChangeCipherSpec, &[1])]);
    assert!(data.is_empty() && matches!(then, Then::Fails(_)));
    // A handshake message that began goes on in the very next record (RFC 8446 §5.1).
    for between in [(ApplicationData, &b"a"[..]), (ApplicationData, b""), (Alert, &[1, 0])] {
        let (data, then) = after(tls13, &[(Handshake, &[24, 0]), between]);
        assert!(data.is_empty() && then == unexpected(), "{between:?}: {data:?} {then:?}");
    }
}

#[test]
fn an_alert_ends_the_connection_but_for_two() {
    use ContentType::{Alert, ApplicationData};
    for suite in of_each_version() {
        for level in [1, 2] {
            let failure = after(suite, &[(Alert, &[level, 40])]);
            let expected = RecordError::Alert(AlertDescription::HandshakeFailure).to_string();
            assert_eq!(failure, (Vec::new(), Then::Fails(expected)));
            assert_eq!(after(suite, &[(Alert, &[level, 0])]), (Vec::new(), Then::Closed));
            let cancelled = after(suite, &[(Alert, &[level, 90]), (ApplicationData, b"a")]);
            assert_eq!(cancelled, (b"a".to_vec(), Then::WantsMore));
        }
    }
}

#[test]
fn a_message_may_span_records() {
    use ContentType::{ApplicationData, Handshake};
    for cut in 1..5 {
        let (mut server, mut client) = both_ours(tls13());
        let message = [24, 0, 0, 1, 1];
        let mut sealed = Vec::new();
        for part in [&message[..cut], &message[cut..]] {
            client.seal_as(Handshake, &[part], &mut sealed).unwrap();
        }
        let (next, keys) = match &mut client.external {
            External::Client(external) => external.update_tx_secret().unwrap(),
            External::Server(_) => panic!("the client is one"),
        };
        (client.sealer, client.sent) = (Sealer::new(client.suite, &keys).unwrap(), next);
        client.seal_as(ApplicationData, &[b"a"], &mut sealed).unwrap();
        assert_eq!(open_all(&mut server, &mut sealed), (b"a".to_vec(), Then::WantsMore), "{cut}");
        assert!(server.owes_key_update);
    }
}

#[test]
fn a_message_that_says_it_is_long_is_refused_at_once() {
    let length = limits::TLS_HANDSHAKE_MESSAGE_BYTES_MAX + 1;
    let [_, high, middle, low] = (length as u32).to_be_bytes();
    let got = after(tls13(), &[(ContentType::Handshake, &[4, high, middle, low])]);
    assert_eq!(got, (Vec::new(), Then::Fails(RecordError::TooLong(length).to_string())));
}

#[test]
fn records_without_content_are_taken_as_long_as_they_are_few() {
    use ContentType::{Alert, ApplicationData};
    let most = limits::TLS_IDLE_RECORDS_MAX as usize;
    for suite in of_each_version() {
        for empty in [(ApplicationData, &b""[..]), (Alert, &[1, 90])] {
            let mut records = vec![empty; most];
            records.push((ApplicationData, b"a"));
            records.extend(vec![empty; most]);
            assert_eq!(after(suite, &records), (b"a".to_vec(), Then::WantsMore));
            records.push(empty);
            let expected = Then::Fails(RecordError::Empty.to_string());
            assert_eq!(after(suite, &records), (b"a".to_vec(), expected));
        }
    }
}

#[test]
fn new_keys_without_end_are_refused() {
    let (mut server, mut client) = both_ours(tls13());
    let mut sealed = Vec::new();
    for _ in 0..=limits::TLS_IDLE_RECORDS_MAX {
        client.owes_key_update = true;
        client.update_keys_if_due(&mut sealed).unwrap();
    }
    let (_, then) = open_all(&mut server, &mut sealed);
    assert_eq!(then, Then::Fails(RecordError::Empty.to_string()));
}

#[test]
fn plain_text_is_not_opened() {
    for suite in of_each_version() {
        for typ in [20, 21, 22, 23, 24, 0, 255] {
            let (mut server, _) = both_ours(suite);
            let mut record = vec![typ, 3, 3, 0, 2, 1, 0];
            assert!(server.open(&mut record).is_err(), "{typ}");
        }
        let (mut server, _) = both_ours(suite);
        let mut http = b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n".to_vec();
        assert!(server.open(&mut http).is_err());
    }
}
