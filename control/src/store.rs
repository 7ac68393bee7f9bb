//! What the control plane must not forget: the certificates it issued, and the tokens of hosts.

mod sqlite;

use std::fmt;
use std::time::SystemTime;

use policy::peer::SpiffeId;

pub use sqlite::{Store, StoreError};

/// One certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// Its serial number, big-endian; unique.
    pub serial: Vec<u8>,
    /// Who it is for.
    pub identity: String,
    /// When it begins.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
    /// When it was issued.
    pub issued_at: SystemTime,
    /// Who asked, and how that was proved.
    pub issued_to: String,
}

/// What a host may be, and who may run there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Name of the host: its identity is `/host/<name>`.
    pub host: String,
    /// Workload identities that may be asked for from there.
    pub allowed: Vec<SpiffeId>,
}

/// A secret that stands for a grant, once. It is shown to the operator who made it and kept by nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// What every token begins with, so that one in a log or a repository is told for what it is.
const PREFIX: &str = "ringway-token-";

/// Random bytes in a token.
const TOKEN_BYTES: usize = 32;

/// Longest token that is looked at, in bytes.
const TOKEN_TEXT_BYTES_MAX: usize = PREFIX.len() + 2 * TOKEN_BYTES;

/// There are no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandom;

impl Token {
    /// A new one, which nobody can guess.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new() -> Result<Token, NoRandom> {
        let mut bytes = [0; TOKEN_BYTES];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandom)?;
        Ok(Token(format!("{PREFIX}{}", hex(&bytes))))
    }

    /// What somebody shows as a token; `None` if it cannot be one.
    pub fn parse(text: &str) -> Option<Token> {
        let digits = text.strip_prefix(PREFIX)?;
        let is_hex = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (text.len() == TOKEN_TEXT_BYTES_MAX && is_hex).then(|| Token(text.to_owned()))
    }

    /// To show it to the one who may know it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is kept of it. It is as random as a hash is long, so neither salt nor a slow hash adds anything.
    fn hash(&self) -> Vec<u8> {
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.0.as_bytes()).as_ref().to_vec()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Bytes as lower-case digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_shown_and_as_nothing_else() {
        let token = Token::new().unwrap();
        let text = token.reveal();
        assert_eq!(Token::parse(text), Some(token.clone()));
        assert_ne!(Token::new().unwrap(), token);
        let upper = text.to_uppercase();
        for wrong in ["", PREFIX, &text[1..], &text[..text.len() - 1], &format!("{text}0"), &upper] {
            assert_eq!(Token::parse(wrong), None, "{wrong}");
        }
        assert!(!format!("{token:?}").contains(&text[PREFIX.len()..]));
    }
}
