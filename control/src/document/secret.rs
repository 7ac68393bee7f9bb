//! Secret of Kubernetes: certificates and keys that other documents refer to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::meta::{Metadata, Unused, absent_if_null};

/// The type of a Secret that has a certificate and its key.
const TLS_TYPE: &str = "kubernetes.io/tls";

/// A Secret; one of type `kubernetes.io/tls` has a certificate chain as `tls.crt` and its key as `tls.key`, both in PEM.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Secret {
    /// `v1`.
    pub api_version: String,
    /// `Secret`.
    pub kind: String,
    /// Name, namespace, labels.
    pub metadata: Metadata,
    /// What it is for: `kubernetes.io/tls`. Others are not used.
    #[serde(rename = "type")]
    pub purpose: Option<String>,
    /// The values, in base64.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub data: BTreeMap<String, Encoded>,
    /// Values as they are; they win over `data`.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub string_data: BTreeMap<String, Plain>,
    /// Kubernetes' own.
    pub immutable: Unused,
    /// What the values come to, found when it is first asked for.
    #[serde(skip)]
    #[schemars(skip)]
    checked: Checked,
}

/// A certificate chain and its key, as they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// Certificates in PEM, the own one first.
    pub chain: Hidden,
    /// The private key in PEM.
    pub key: Hidden,
}

/// Nothing that the values do not say.
#[derive(Debug, Clone, Default)]
struct Checked(OnceLock<Result<KeyPair, String>>);

impl PartialEq for Checked {
    fn eq(&self, _: &Checked) -> bool {
        true
    }
}

impl Secret {
    /// A value by its name.
    fn value(&self, name: &str) -> Option<&Hidden> {
        let plain = self.string_data.get(name).map(|value| &value.0);
        plain.or_else(|| self.data.get(name).map(|value| &value.0))
    }

    /// The certificate chain and its key; otherwise what is wrong with the Secret, said of it.
    pub fn key_pair(&self) -> Result<&KeyPair, &str> {
        self.checked.0.get_or_init(|| self.check()).as_ref().map_err(String::as_str)
    }

    fn check(&self) -> Result<KeyPair, String> {
        if self.purpose.as_deref() != Some(TLS_TYPE) {
            return Err("is not of type kubernetes.io/tls".to_owned());
        }
        let value = |name| self.value(name).cloned().ok_or_else(|| format!("has no {name}"));
        let pair = KeyPair { chain: value("tls.crt")?, key: value("tls.key")? };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pair.chain.reveal())
            .collect::<Result<_, _>>()
            .map_err(|error| format!("has a tls.crt that is not PEM: {error}"))?;
        if chain.is_empty() {
            return Err("has a tls.crt without a certificate in PEM".to_owned());
        }
        let key = PrivateKeyDer::from_pem_slice(pair.key.reveal())
            .map_err(|_| "has a tls.key without a private key in PEM".to_owned())?;
        let key = default_provider().key_provider.load_private_key(key);
        let key = key.map_err(|_| "has a tls.key of a kind that is not supported".to_owned())?;
        match CertifiedKey::new(chain, key).keys_match() {
            Ok(()) => Ok(pair),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err("has a tls.key that is not of its tls.crt".to_owned())
            }
            Err(error) => Err(format!("has a tls.crt that cannot be read: {error}")),
        }
    }
}

/// Bytes that are in no log, no dump and no answer of ours.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(Arc<[u8]>);

impl Hidden {
    /// The bytes, for who has to have them.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

/// A value of `data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded(Hidden);

/// A value of `stringData`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plain(Hidden);

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(deserializer)?;
        // A block of YAML has the lines as they were written.
        text.retain(|c| !c.is_ascii_whitespace());
        // What is wrong with it would show some of it.
        let bytes = STANDARD.decode(&text).map_err(|_| D::Error::custom("the value is not base64"))?;
        Ok(Self(Hidden(bytes.into())))
    }
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Hidden(String::deserialize(deserializer)?.into_bytes().into())))
    }
}

// Documents are written to find what of them is not used, never to show them.
impl Serialize for Encoded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl Serialize for Plain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl JsonSchema for Encoded {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Encoded".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "contentEncoding": "base64" })
    }
}

impl JsonSchema for Plain {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Plain".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Secret, String> {
        let head = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n";
        serde_saphyr::from_str(&format!("{head}{text}")).map_err(|error| error.to_string())
    }

    /// A certificate and its key in PEM.
    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn lines(text: &str) -> String {
        text.lines().map(|line| format!("    {line}\n")).collect()
    }

    #[test]
    fn a_certificate_and_its_key_are_read_from_either_form_and_shown_by_none() {
        let (chain, key) = pair();
        let tls = "type: kubernetes.io/tls\n";
        let base64 = |text: &str| STANDARD.encode(text);
        let folded: String =
            base64(&key).as_bytes().chunks(60).map(|line| format!("    {}\n", line.escape_ascii())).collect();
        let cases = [
            format!("{tls}data: {{tls.crt: {}, tls.key: {}}}", base64(&chain), base64(&key)),
            format!("{tls}data:\n  tls.crt: {}\n  tls.key: |\n{folded}", base64(&chain)),
            format!("{tls}stringData:\n  tls.crt: |\n{}  tls.key: |\n{}", lines(&chain), lines(&key)),
            format!(
                "{tls}data: {{tls.crt: {}, tls.key: eA==}}\nstringData:\n  tls.key: |\n{}",
                base64(&chain),
                lines(&key)
            ),
        ];
        for text in cases {
            let secret = read(&text).unwrap();
            let pair = secret.key_pair().unwrap();
            assert_eq!(
                (pair.chain.reveal(), pair.key.reveal()),
                (chain.as_bytes(), key.as_bytes()),
                "{text}"
            );
            let shown = format!("{secret:?} {}", serde_json::to_string(&secret).unwrap());
            let inside = key.lines().nth(1).unwrap();
            assert!(
                !shown.contains(inside) && !shown.contains(&base64(&key)) && !shown.contains("eA=="),
                "{shown}"
            );
        }
    }

    #[test]
    fn what_cannot_be_shown_to_a_client_is_said_of_the_secret() {
        let ((chain, key), (_, other)) = (pair(), pair());
        let tls = |chain: &str, key: &str| {
            let encode = |text: &str| STANDARD.encode(text);
            format!("type: kubernetes.io/tls\ndata: {{tls.crt: {}, tls.key: {}}}", encode(chain), encode(key))
        };
        let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cases = [
            (tls("Hello world", &key), "has a tls.crt without a certificate in PEM"),
            (tls(no_certificate, &key), "has a tls.crt that cannot be read"),
            (tls(&chain, "Hello world"), "has a tls.key without a private key in PEM"),
            (tls(&chain, &other), "has a tls.key that is not of its tls.crt"),
            (tls(&chain, &key).replace("tls.key", "key"), "has no tls.key"),
            ("type: kubernetes.io/tls\ndata: null".to_owned(), "has no tls.crt"),
            (tls(&chain, &key).replace("kubernetes.io/tls", "Opaque"), "is not of type kubernetes.io/tls"),
            ("data: {}".to_owned(), "is not of type kubernetes.io/tls"),
        ];
        for (text, expected) in cases {
            let secret = read(&text).unwrap();
            let said = secret.key_pair().unwrap_err();
            assert!(said.starts_with(expected), "{said} and not {expected}");
        }
    }

    #[test]
    fn what_is_no_base64_is_refused_and_not_repeated() {
        let error = read("data: {tls.key: 'hunter2!'}").unwrap_err();
        assert!(error.contains("the value is not base64"), "{error}");
        assert!(!error.lines().next().unwrap().contains("hunter2"), "{error}");
    }
}
