//! What an operator hands to a new host: the secret, and by whom the control plane that takes it is vouched for.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use crate::store::{Token, hex};

/// Written as `ringway-token-<64 digits>.<64 digits>`: a secret, and the SHA-256 of a root of the mesh. So the host knows whom it
/// tells the secret, and nobody between the two learns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Stands for the host, once.
    pub token: Token,
    /// The root.
    pub root: RootHash,
}

/// SHA-256 of a certificate in DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootHash([u8; SHA256_OUTPUT_LEN]);

/// A text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected what `ringway token` printed")]
pub struct TokenError;

impl RootHash {
    /// Of a certificate in DER.
    pub fn of(certificate: &[u8]) -> RootHash {
        let mut hash = [0; SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest(&SHA256, certificate).as_ref());
        RootHash(hash)
    }

    fn parse(text: &str) -> Option<RootHash> {
        let mut hash = [0; SHA256_OUTPUT_LEN];
        let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 2 * hash.len() || !is_hex {
            return None;
        }
        for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
        }
        Some(RootHash(hash))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<JoinToken, TokenError> {
        let (token, root) = text.trim().split_once('.').ok_or(TokenError)?;
        let (token, root) =
            (Token::parse(token).ok_or(TokenError)?, RootHash::parse(root).ok_or(TokenError)?);
        Ok(JoinToken { token, root })
    }
}

impl JoinToken {
    /// To show it to the one who may know it.
    pub fn reveal(&self) -> String {
        format!("{}.{}", self.token.reveal(), self.root)
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_shown_and_as_nothing_else() {
        let token = JoinToken { token: Token::new().unwrap(), root: RootHash::of(b"root") };
        let text = token.reveal();
        assert_eq!(format!("{text}\n").parse(), Ok(token.clone()));
        let secret = token.token.reveal();
        let wrong = [
            "",
            secret,
            &format!("{secret}."),
            &text[1..],
            &text[..text.len() - 1],
            &format!("{text}0"),
            &text.to_uppercase(),
        ];
        for wrong in wrong {
            assert_eq!(wrong.parse::<JoinToken>(), Err(TokenError), "{wrong}");
        }
        assert!(!format!("{token:?}").contains(&secret[20..]));
    }
}
