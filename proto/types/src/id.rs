//! Names that must not be mixed up: hosts, guests, orders and the epoch that fences them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest host name accepted, in bytes (the limit of a DNS name).
const MAX_HOST_NAME: usize = 253;

/// Why a text is no valid id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidId {
    /// What kind of id was expected.
    pub kind: &'static str,
    /// The text that was given, shortened.
    pub given: String,
    /// What a valid one looks like.
    pub expected: &'static str,
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "invalid {} {:?}: expected {}",
            self.kind, self.given, self.expected
        )
    }
}

impl std::error::Error for InvalidId {}

fn invalid(kind: &'static str, given: &str, expected: &'static str) -> InvalidId {
    InvalidId {
        kind,
        given: given.chars().take(64).collect(),
        expected,
    }
}

macro_rules! text_id {
    ($name:ident) => {
        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

/// A physical machine's name: letters, digits, `.`, `-` and `_`, at most 253 bytes.
///
/// The characters are limited because the name is one segment of an etcd key and of a certificate's SAN.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

text_id!(HostName);

impl FromStr for HostName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if text.is_empty() || text.len() > MAX_HOST_NAME || !text.chars().all(allowed) {
            return Err(invalid(
                "host name",
                text,
                "letters, digits, '.', '-' or '_'",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A guest's UUID in canonical form: lower case with hyphens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GuestId(String);

text_id!(GuestId);

impl FromStr for GuestId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        canonical_uuid(text)
            .map(Self)
            .ok_or_else(|| invalid("guest id", text, "a UUID"))
    }
}

fn canonical_uuid(text: &str) -> Option<String> {
    let shape_holds = text.len() == 36
        && text.char_indices().all(|(at, c)| match at {
            8 | 13 | 18 | 23 => c == '-',
            _ => c.is_ascii_hexdigit(),
        });
    shape_holds.then(|| text.to_ascii_lowercase())
}

/// The id of one order and of the migration it asks for: a UUID made by the leader.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrderId(String);

text_id!(OrderId);

impl OrderId {
    /// Makes an id from 128 random bits (the caller owns the entropy).
    #[must_use]
    pub fn from_random(bits: u128) -> Self {
        let hex = format!("{bits:032x}");
        let parts = [
            &hex[0..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..32],
        ];
        Self(parts.join("-"))
    }

    /// The first eight characters: enough to tell migrations apart in a table.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..8]
    }
}

impl FromStr for OrderId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        canonical_uuid(text)
            .map(Self)
            .ok_or_else(|| invalid("order id", text, "a UUID"))
    }
}

/// The fencing token: the etcd create revision of the leader's key. A later leader's is always higher.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub i64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_that_would_leave_their_key_prefix_are_refused() {
        for bad in ["", "a/b", "../x", "h 1", "h\u{e9}"] {
            assert!(bad.parse::<HostName>().is_err(), "{bad:?} was accepted");
        }
        assert_eq!(
            "kvm-1.example_x".parse::<HostName>().map(String::from),
            Ok("kvm-1.example_x".into())
        );
    }

    #[test]
    fn guest_ids_are_canonical() {
        let id: GuestId = "6BA7B810-9DAD-11D1-80B4-00C04FD430C8".parse().unwrap();
        assert_eq!(id.as_str(), "6ba7b810-9dad-11d1-80b4-00c04fd430c8");
        assert!(
            "6ba7b8109dad11d180b400c04fd430c8"
                .parse::<GuestId>()
                .is_err()
        );
    }

    #[test]
    fn random_order_ids_parse_again() {
        for bits in [0, 1, u128::MAX, 0x1234_5678_9abc_def0] {
            let id = OrderId::from_random(bits);
            assert_eq!(id.as_str().parse::<OrderId>(), Ok(id.clone()));
            assert_eq!(id.short().len(), 8);
        }
    }

    #[test]
    fn ids_survive_serde_and_bad_ones_do_not_enter_through_it() {
        let host: HostName = serde_json::from_str("\"h1\"").unwrap();
        assert_eq!(serde_json::to_string(&host).unwrap(), "\"h1\"");
        assert!(serde_json::from_str::<HostName>("\"a/b\"").is_err());
    }
}
