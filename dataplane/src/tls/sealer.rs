//! Seals records where they are written, with no memory of its own: what rustls seals is an allocation each.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::{ConnectionTrafficSecrets, ContentType, Error, SupportedCipherSuite};

use super::record::{HEADER_BYTES, RecordError};

/// Bytes of a nonce; all ciphers here agree on that.
const NONCE_BYTES: usize = 12;

/// What goes with a TLS 1.2 record of GCM: the end of its nonce (RFC 5288 §3).
const EXPLICIT_NONCE_BYTES: usize = 8;

/// Bytes behind what is sealed.
const TAG_BYTES: usize = 16;

/// One key of ours.
pub(super) struct Sealer {
    key: LessSafeKey,
    iv: [u8; NONCE_BYTES],
    form: Form,
}

/// How a record looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// RFC 8446 §5.2.
    Tls13,
    /// RFC 5288 §3. As rustls does it, the end of the nonce is secret bytes with the record's number over them.
    Tls12Gcm,
    /// RFC 7905 §2.
    Tls12Chacha20,
}

impl Sealer {
    /// With the secrets that rustls gives out.
    pub(super) fn new(
        suite: SupportedCipherSuite,
        secrets: &ConnectionTrafficSecrets,
    ) -> Result<Sealer, RecordError> {
        use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
        let (algorithm, key, iv) = match secrets {
            Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(RecordError::Unexpected),
        };
        let form = match (suite, secrets) {
            (SupportedCipherSuite::Tls13(_), _) => Form::Tls13,
            (SupportedCipherSuite::Tls12(_), Chacha20Poly1305 { .. }) => Form::Tls12Chacha20,
            (SupportedCipherSuite::Tls12(_), _) => Form::Tls12Gcm,
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| Error::EncryptError)?;
        let iv = iv.as_ref().try_into().map_err(|_| Error::EncryptError)?;
        Ok(Sealer { key: LessSafeKey::new(key), iv, form })
    }

    /// Appends the record `number` of `kind`, which carries `chunks`: no number may come twice.
    pub(super) fn seal(
        &self,
        kind: ContentType,
        chunks: &[&[u8]],
        number: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), RecordError> {
        let nonce = self.nonce(number);
        let content: usize = chunks.iter().map(|chunk| chunk.len()).sum();
        let (outer, explicit, inner) = match self.form {
            Form::Tls13 => (ContentType::ApplicationData, 0, 1),
            Form::Tls12Gcm => (kind, EXPLICIT_NONCE_BYTES, 0),
            Form::Tls12Chacha20 => (kind, 0, 0),
        };
        let behind = explicit + content + inner + TAG_BYTES;
        let length = u16::try_from(behind).map_err(|_| Error::EncryptError)?;
        out.reserve(HEADER_BYTES + behind);
        let header = header(outer, length);
        out.extend_from_slice(&header);
        if explicit > 0 {
            out.extend_from_slice(&nonce[NONCE_BYTES - EXPLICIT_NONCE_BYTES..]);
        }
        let start = out.len();
        chunks.iter().for_each(|chunk| out.extend_from_slice(chunk));
        if inner > 0 {
            out.push(kind.into());
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = &mut out[start..];
        let tag = match self.form {
            Form::Tls13 => self.key.seal_in_place_separate_tag(nonce, Aad::from(header), sealed),
            Form::Tls12Gcm | Form::Tls12Chacha20 => {
                let aad = tls12_aad(kind, number, sealed.len())?;
                self.key.seal_in_place_separate_tag(nonce, Aad::from(aad), sealed)
            }
        };
        out.extend_from_slice(tag.map_err(|_| Error::EncryptError)?.as_ref());
        Ok(())
    }

    /// The number over the end of what the handshake made (RFC 8446 §5.3, RFC 7905 §2).
    fn nonce(&self, number: u64) -> [u8; NONCE_BYTES] {
        let mut nonce = self.iv;
        let end = nonce.iter_mut().skip(NONCE_BYTES - size_of::<u64>());
        end.zip(number.to_be_bytes()).for_each(|(byte, of_number)| *byte ^= of_number);
        nonce
    }
}

fn header(kind: ContentType, length: u16) -> [u8; HEADER_BYTES] {
    let [high, low] = length.to_be_bytes();
    // As TLS 1.2 says it, in TLS 1.3 too (RFC 8446 §5.1).
    [kind.into(), 3, 3, high, low]
}

/// What a record of TLS 1.2 is bound to (RFC 5246 §6.2.3.3).
fn tls12_aad(kind: ContentType, number: u64, content: usize) -> Result<[u8; 13], RecordError> {
    let mut aad = [0; 13];
    let (of_number, of_header) = aad.split_at_mut(size_of::<u64>());
    of_number.copy_from_slice(&number.to_be_bytes());
    let length = u16::try_from(content).map_err(|_| Error::EncryptError)?;
    of_header.copy_from_slice(&header(kind, length));
    Ok(aad)
}
