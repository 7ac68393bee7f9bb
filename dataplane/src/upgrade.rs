//! Connections that become something else: whether they may, and what HTTP/1.1 and HTTP/2 say of it differently.
//!
//! Above this an upgrade is what HTTP/1.1 has: a GET that asks for it, and a 101 that grants it. Over HTTP/2 the WebSocket
//! protocol leaves out a key and the proof that it was read (RFC 8441 §5.1), which a proxy between the two must make.

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use policy::{Rng, network_filter::HttpConnectionManager, route::Forward, upgrade::CONNECT};
use wire::{
    head::{Framing, Method, RequestView},
    http1::conn::Asked,
};

use crate::respond::ExchangeError;

/// The header with the key.
pub const KEY: &[u8] = b"sec-websocket-key";

/// The header with the proof.
pub const ACCEPT: &[u8] = b"sec-websocket-accept";

/// Characters of a key: 16 bytes in base64.
pub const KEY_CHARACTERS: usize = 24;

/// Characters of a proof: 20 bytes in base64.
pub const ACCEPT_CHARACTERS: usize = 28;

/// What a request goes on as. HTTP/1.1 lets a server pass over the wish for an upgrade, and the request is a plain one then; a
/// stream that asks has no other meaning, nor has CONNECT.
pub fn asked(
    view: &RequestView<'_>,
    is_stream: bool,
    forward: &Forward,
    manager: &HttpConnectionManager,
) -> Result<Asked, ExchangeError> {
    let allows = |kind| forward.upgrades.allows(&manager.upgrades, kind);
    if view.head.method == Method::Connect {
        return if allows(CONNECT) { Ok(Asked::Tunnel) } else { Err(ExchangeError::UpgradeNotAllowed) };
    }
    if !view.head.upgrade {
        return Ok(Asked::Response);
    }
    let mut kinds = view.header_values(b"upgrade");
    let kind = kinds.next().unwrap_or_default();
    // With several to choose from upstream could grant one that is not allowed.
    let is_one = kinds.next().is_none() && !kind.contains(&b',');
    // A body before the tunnel has no place in HTTP/2 (RFC 8441 §4), and nobody sends one.
    let has_body = !matches!(view.head.framing, Framing::None | Framing::Length(0));
    match is_one && !has_body && allows(kind) {
        true => Ok(Asked::Upgrade),
        false if is_stream => Err(ExchangeError::UpgradeNotAllowed),
        false => Ok(Asked::Response),
    }
}

/// Writes a key.
pub fn write_key(rng: &mut Rng, text: &mut [u8; KEY_CHARACTERS]) {
    let (one, other) = (rng.next_u64().to_le_bytes(), rng.next_u64().to_le_bytes());
    let mut bytes = [0; 16];
    let (front, back) = bytes.split_at_mut(8);
    front.copy_from_slice(&one);
    back.copy_from_slice(&other);
    // It has exactly this length.
    let _ = STANDARD.encode_slice(bytes, text);
}

/// Writes the proof that `key` was read (RFC 6455 §4.2.2). The hash is not for secrecy, and no other is known there.
pub fn write_accept(key: &[u8], text: &mut [u8; ACCEPT_CHARACTERS]) {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let _ = STANDARD.encode_slice(hash.finish(), text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_is_the_one_of_the_specification() {
        let mut text = [0; ACCEPT_CHARACTERS];
        // RFC 6455 §1.3
        write_accept(b"dGhlIHNhbXBsZSBub25jZQ==", &mut text);
        assert_eq!(str::from_utf8(&text).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_is_sixteen_random_bytes() {
        let (mut rng, mut one, mut other) = (Rng::new(7), [0; KEY_CHARACTERS], [0; KEY_CHARACTERS]);
        write_key(&mut rng, &mut one);
        write_key(&mut rng, &mut other);
        assert_ne!(one, other);
        assert_eq!(STANDARD.decode(one).unwrap().len(), 16);
    }
}
