//! The records of a TLS connection after its handshake: bytes to bytes, no I/O.
//!
//! rustls does the handshake and makes the keys; this is what is left when those are given: five bytes of header, a number
//! for each record, and the few messages that may still come (RFC 8446 §4.6, §5, §6). A record is opened where it lies and
//! sealed where it is written, with no memory of its own.
//!
//! Faces hostile bytes.

use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, ExtractedSecrets, ProtocolVersion,
    SupportedCipherSuite,
    client::ClientConnectionData,
    crypto::cipher::{InboundOpaqueMessage, MessageDecrypter},
    kernel::KernelConnection,
    server::ServerConnectionData,
};

use policy::limits;

use super::sealer::Sealer;

/// Content type, version and length (RFC 8446 §5.1).
pub(super) const HEADER_BYTES: usize = 5;

/// Most plaintext in a record (RFC 8446 §5.1).
pub(super) const PLAINTEXT_BYTES_MAX: usize = 16 * 1024;

/// Most bytes behind the header of a record: TLS 1.2 allows more than TLS 1.3 (RFC 5246 §6.2.3, RFC 8446 §5.2).
const SEALED_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX + 2048;

/// Longest record.
pub(super) const BYTES_MAX: usize = HEADER_BYTES + SEALED_BYTES_MAX;
/// A whole one fits into one buffer.
const _: () = assert!(BYTES_MAX <= limits::RECV_BUFFER_BYTES);

/// Both directions of a connection whose handshake is done.
pub struct Records {
    suite: SupportedCipherSuite,
    external: External,
    decrypter: Box<dyn MessageDecrypter>,
    received: u64,
    sealer: Sealer,
    sent: u64,
    /// Records that one key of ours seals at most.
    key_records_max: u64,
    /// Bytes of a handshake message that is not whole yet.
    handshake: Vec<u8>,
    /// The other end asked for new keys of ours.
    owes_key_update: bool,
    /// Records without a byte of the application since the last with one.
    idle_records: u32,
}

/// What rustls keeps for new keys and tickets.
enum External {
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
}

/// What lies at the front of the received bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// Not a whole record yet.
    Partial,
    /// A record of `length` bytes that carries these of the application; none, where it was for us.
    Data {
        /// What was in it.
        payload: &'a [u8],
        /// All of its bytes.
        length: usize,
    },
    /// The other end sends nothing more.
    Closed,
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A record says that it is longer than one may be.
    #[error("a record of {0} bytes is too long")]
    TooLong(usize),
    /// A record of a type that has no place here, or with a message that has none.
    #[error("an unexpected message")]
    Unexpected,
    /// The other end says that something is wrong.
    #[error("the other end sent the alert {0:?}")]
    Alert(AlertDescription),
    /// It was changed on its way, or is not from whom it should be; or no more can be sealed.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// So many records in a row without a byte of the application that nobody who means well sends them.
    #[error("too many records without content")]
    Empty,
}

impl Records {
    /// The records that follow the handshake of a server.
    pub fn of_server(
        (secrets, external): (ExtractedSecrets, KernelConnection<ServerConnectionData>),
    ) -> Result<Records, RecordError> {
        Records::new(external.negotiated_cipher_suite(), secrets, External::Server(external))
    }

    /// The records that follow the handshake of a client.
    pub fn of_client(
        (secrets, external): (ExtractedSecrets, KernelConnection<ClientConnectionData>),
    ) -> Result<Records, RecordError> {
        Records::new(external.negotiated_cipher_suite(), secrets, External::Client(external))
    }

    fn new(
        suite: SupportedCipherSuite,
        secrets: ExtractedSecrets,
        external: External,
    ) -> Result<Records, RecordError> {
        let ((sent, ours), (received, theirs)) = (secrets.tx, secrets.rx);
        Ok(Records {
            suite,
            external,
            decrypter: decrypter(suite, theirs)?,
            received,
            sealer: Sealer::new(suite, &ours)?,
            sent,
            key_records_max: match suite {
                SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit.min(KEY_RECORDS_MAX),
                // There are no new keys in TLS 1.2, so each is used for as long as it is safe.
                SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
            },
            handshake: Vec::new(),
            owes_key_update: false,
            idle_records: 0,
        })
    }

    /// Whether a whole record lies at the front of `bytes`, or something that is none.
    pub fn is_whole(bytes: &[u8]) -> bool {
        let Some((kind, length)) = header_of(bytes) else { return false };
        !is_known(kind) || length > SEALED_BYTES_MAX || bytes.len() >= HEADER_BYTES + length
    }

    /// Opens the record at the front of `bytes`, where it lies.
    ///
    /// # Errors
    /// When the connection cannot go on; nothing may be opened any more.
    pub fn open<'a>(&mut self, bytes: &'a mut [u8]) -> Result<Opened<'a>, RecordError> {
        let Some((outer, length)) = header_of(bytes) else { return Ok(Opened::Partial) };
        let is_tls13 = matches!(self.suite, SupportedCipherSuite::Tls13(_));
        // All that is sealed in TLS 1.3 looks like data (RFC 8446 §5.2), and all is sealed by now. What is none is not waited
        // for: plain text may say anything where a length would be.
        if !is_known(outer) || is_tls13 && outer != ContentType::ApplicationData {
            return Err(RecordError::Unexpected);
        }
        if length > SEALED_BYTES_MAX {
            return Err(RecordError::TooLong(length));
        }
        let length = HEADER_BYTES + length;
        let Some(sealed) = bytes.get_mut(HEADER_BYTES..length) else { return Ok(Opened::Partial) };
        let message = InboundOpaqueMessage::new(outer, ProtocolVersion::TLSv1_2, sealed);
        let message = self.decrypter.decrypt(message, self.received)?;
        self.received += 1;
        let (kind, payload) = (message.typ, message.payload);
        if payload.len() > PLAINTEXT_BYTES_MAX {
            return Err(RecordError::TooLong(payload.len()));
        }
        if kind == ContentType::ApplicationData && !payload.is_empty() && self.handshake.is_empty() {
            self.idle_records = 0;
            return Ok(Opened::Data { payload, length });
        }
        self.idle_records += 1;
        if self.idle_records > limits::TLS_IDLE_RECORDS_MAX {
            return Err(RecordError::Empty);
        }
        match kind {
            // A message that began in one record goes on in the very next (RFC 8446 §5.1).
            ContentType::ApplicationData if self.handshake.is_empty() => {}
            ContentType::Alert if self.handshake.is_empty() => match alert(payload)? {
                Alert::CloseNotify => return Ok(Opened::Closed),
                Alert::Ignored => {}
            },
            ContentType::Handshake if is_tls13 => self.take_handshake(payload)?,
            _ => return Err(RecordError::Unexpected),
        }
        Ok(Opened::Data { payload: &[], length })
    }

    /// Messages after the handshake (RFC 8446 §4.6): new keys and tickets.
    fn take_handshake(&mut self, payload: &[u8]) -> Result<(), RecordError> {
        const NEW_SESSION_TICKET: u8 = 4;
        const KEY_UPDATE: u8 = 24;
        if payload.is_empty() {
            return Err(RecordError::Unexpected);
        }
        self.handshake.extend_from_slice(payload);
        while let [kind, high, middle, low, rest @ ..] = &self.handshake[..] {
            let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
            if length > limits::TLS_HANDSHAKE_MESSAGE_BYTES_MAX {
                return Err(RecordError::TooLong(length));
            }
            let Some((message, behind)) = rest.split_at_checked(length) else { return Ok(()) };
            match (*kind, message, &mut self.external) {
                // Keys change between two records, so nothing may follow in this one (RFC 8446 §5.1).
                (KEY_UPDATE, [asks @ 0..=1], _) if behind.is_empty() => {
                    self.owes_key_update |= *asks == 1;
                    self.handshake.clear();
                    let (received, theirs) = match &mut self.external {
                        External::Server(external) => external.update_rx_secret()?,
                        External::Client(external) => external.update_rx_secret()?,
                    };
                    self.decrypter = decrypter(self.suite, theirs)?;
                    self.received = received;
                    return Ok(());
                }
                (NEW_SESSION_TICKET, message, External::Client(external)) => {
                    external.handle_new_session_ticket(message)?;
                }
                _ => return Err(RecordError::Unexpected),
            }
            let taken = self.handshake.len() - behind.len();
            self.handshake.drain(..taken);
        }
        Ok(())
    }

    /// Appends records that carry `chunks`, all of which together are no more than [`PLAINTEXT_BYTES_MAX`].
    ///
    /// # Errors
    /// When no more can be sealed; the connection must end.
    pub fn seal(&mut self, chunks: &[&[u8]], out: &mut Vec<u8>) -> Result<(), RecordError> {
        self.update_keys_if_due(out)?;
        self.seal_as(ContentType::ApplicationData, chunks, out)
    }

    /// Appends what tells the other end that nothing more will come (RFC 8446 §6.1).
    ///
    /// # Errors
    /// As [`Records::seal`].
    pub fn seal_close(&mut self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        const WARNING: u8 = 1;
        const CLOSE_NOTIFY: u8 = 0;
        self.seal_as(ContentType::Alert, &[&[WARNING, CLOSE_NOTIFY]], out)
    }

    /// New keys, where the other end asked for them, or the old ones have sealed as much as they safely can.
    fn update_keys_if_due(&mut self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let is_used_up = self.sent >= self.key_records_max;
        if !is_used_up && !self.owes_key_update {
            return Ok(());
        }
        if matches!(self.suite, SupportedCipherSuite::Tls12(_)) {
            return Err(rustls::Error::EncryptError.into());
        }
        // A KeyUpdate that asks for none in return (RFC 8446 §4.6.3).
        self.seal_as(ContentType::Handshake, &[&[24, 0, 0, 1, 0]], out)?;
        let (sent, ours) = match &mut self.external {
            External::Server(external) => external.update_tx_secret()?,
            External::Client(external) => external.update_tx_secret()?,
        };
        self.sealer = Sealer::new(self.suite, &ours)?;
        self.sent = sent;
        self.owes_key_update = false;
        Ok(())
    }

    fn seal_as(&mut self, kind: ContentType, chunks: &[&[u8]], out: &mut Vec<u8>) -> Result<(), RecordError> {
        self.sealer.seal(kind, chunks, self.sent, out)?;
        self.sent += 1;
        Ok(())
    }
}

/// Records that one key seals at most, whatever its cipher allows: 2^22, so that keys change now and then on a connection
/// that carries much, and the path is one that is used.
const KEY_RECORDS_MAX: u64 = 1 << 22;

/// What the header says: the type, and how many bytes are behind it; `None` while it is not whole.
fn header_of(bytes: &[u8]) -> Option<(ContentType, usize)> {
    let [kind, _, _, high, low, ..] = bytes else { return None };
    Some((ContentType::from(*kind), usize::from(u16::from_be_bytes([*high, *low]))))
}

/// All bytes of the record at the front of `bytes`, when it is whole; where none can be, all of `bytes`.
pub(super) fn length_of(bytes: &[u8]) -> Option<usize> {
    let (kind, length) = header_of(bytes)?;
    if length > SEALED_BYTES_MAX || !is_known(kind) && kind != ContentType::ChangeCipherSpec {
        return Some(bytes.len());
    }
    Some(HEADER_BYTES + length).filter(|whole| *whole <= bytes.len())
}

/// Whether records of this type may come behind a handshake, in one version or the other.
fn is_known(kind: ContentType) -> bool {
    matches!(kind, ContentType::Alert | ContentType::Handshake | ContentType::ApplicationData)
}

enum Alert {
    CloseNotify,
    Ignored,
}

/// What an alert means (RFC 8446 §6): all but two end the connection.
fn alert(payload: &[u8]) -> Result<Alert, RecordError> {
    let [_level, description] = payload else { return Err(RecordError::Unexpected) };
    match AlertDescription::from(*description) {
        AlertDescription::CloseNotify => Ok(Alert::CloseNotify),
        AlertDescription::UserCanceled => Ok(Alert::Ignored),
        other => Err(RecordError::Alert(other)),
    }
}

/// Bytes of a TLS 1.2 nonce that the handshake makes; the others go with each record (RFC 5288 §3).
const GCM_SALT_BYTES: usize = 4;

fn decrypter(
    suite: SupportedCipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Result<Box<dyn MessageDecrypter>, RecordError> {
    use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
    Ok(match (suite, secrets) {
        (
            SupportedCipherSuite::Tls13(suite),
            Aes128Gcm { key, iv } | Aes256Gcm { key, iv } | Chacha20Poly1305 { key, iv },
        ) => suite.aead_alg.decrypter(key, iv),
        (SupportedCipherSuite::Tls12(suite), Aes128Gcm { key, iv } | Aes256Gcm { key, iv }) => {
            let (salt, _) = iv.as_ref().split_at(GCM_SALT_BYTES);
            suite.aead_alg.decrypter(key, salt)
        }
        (SupportedCipherSuite::Tls12(suite), Chacha20Poly1305 { key, iv }) => {
            suite.aead_alg.decrypter(key, iv.as_ref())
        }
        _ => return Err(RecordError::Unexpected),
    })
}

#[cfg(test)]
mod tests;
