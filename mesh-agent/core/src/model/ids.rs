//! Identifiers and names.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A random identifier of 25 base-36 characters, chosen by whoever creates the record *before* the
/// transaction, so that after an unknown outcome it can be looked for.
pub struct Id<T> {
    text: Arc<str>,
    kind: PhantomData<fn() -> T>,
}

/// Marks an [`Id`] as a network's.
pub enum NetworkKind {}
/// Marks an [`Id`] as a service's.
pub enum ServiceKind {}
/// Marks an [`Id`] as a task's.
pub enum TaskKind {}
/// Marks an [`Id`] as a node's.
pub enum NodeKind {}
/// The identifier of a network.
pub type NetworkId = Id<NetworkKind>;
/// The identifier of a service.
pub type ServiceId = Id<ServiceKind>;
/// The identifier of a task.
pub type TaskId = Id<TaskKind>;
/// The identifier of a node.
pub type NodeId = Id<NodeKind>;

impl<T> Id<T> {
    /// Makes an identifier of 16 random bytes.
    pub fn from_random(random: [u8; 16]) -> Self {
        let mut number = u128::from_be_bytes(random);
        let mut text = vec![b'0'; 25];
        for place in text.iter_mut().rev() {
            *place = b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize];
            number /= 36;
        }
        Self::new(text.into_iter().map(char::from).collect::<String>())
    }

    /// An identifier with a text of one's own, for keys read back and for tests.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self { text: text.into(), kind: PhantomData }
    }

    /// The whole identifier.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first 12 characters, as tables show it.
    pub fn short(&self) -> &str {
        self.text.get(..12).unwrap_or(&self.text)
    }
}

// Derives would ask the same of the marker type, which has no values.
impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        Self { text: Arc::clone(&self.text), kind: PhantomData }
    }
}
impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl<T> Eq for Id<T> {}
impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}
impl<T> std::borrow::Borrow<str> for Id<T> {
    fn borrow(&self) -> &str {
        &self.text
    }
}
impl<T> std::hash::Hash for Id<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}
impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
impl<T> fmt::Display for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}
impl<T> Serialize for Id<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}
impl<'de, T> Deserialize<'de> for Id<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let sound = !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if !sound {
            return Err(serde::de::Error::custom(format!("'{text}' is no identifier")));
        }
        Ok(Self::new(text))
    }
}

/// A name that is one DNS label: 1 to 63 of `a-z 0-9 - _`, beginning and ending with a letter or a digit.
///
/// The underscore is no host-name character (RFC 952), but DNS carries it (RFC 2181 §11) and service names
/// of Swarm and Compose are full of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid name '{text}': {why}; a name is one DNS label: 1 to 63 characters of a-z, 0-9, '-' and '_', \
     beginning and ending with a letter or digit"
)]
pub struct InvalidName {
    text: String,
    why: String,
}

impl Name {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let refuse = |why: String| Err(InvalidName { text: text.to_owned(), why });
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if text.is_empty() {
            return refuse("it is empty".to_owned());
        }
        if let Some(stranger) = text.chars().find(|c| !allowed(*c)) {
            let hint = if stranger.is_ascii_uppercase() { " (use lower case)" } else { "" };
            return refuse(format!("{stranger:?} is not allowed{hint}"));
        }
        if text.len() > 63 {
            return refuse(format!("it has {} characters", text.len()));
        }
        let edge = |b: u8| b == b'-' || b == b'_';
        if edge(text.as_bytes()[0]) || edge(text.as_bytes()[text.len() - 1]) {
            return refuse("it begins or ends with '-' or '_'".to_owned());
        }
        if ["tasks", "nearest", "localhost"].contains(&text) {
            return refuse("DNS gives it a meaning of its own".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}
impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// FNV-1a, 64 bit: a stable spread for names and first picks, the same on every node and in every release.
/// See <http://www.isthe.com/chongo/tech/comp/fnv/>. Not for anything that an attacker chooses.
pub fn fnv64(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["web", "my_web", "a", "0", "db-1", &"x".repeat(63)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", "Web", "wéb", "-a", "a-", "_a", "a.b", "a b", "tasks", "網", &"x".repeat(64)] {
            let error = bad.parse::<Name>().unwrap_err().to_string();
            assert!(error.contains("DNS label"), "{error}");
        }
    }

    #[test]
    fn ids_are_25_base36_characters_and_short_is_safe() {
        assert_eq!(TaskId::from_random([0xff; 16]).as_str().len(), 25);
        assert_ne!(TaskId::from_random([1; 16]), TaskId::from_random([2; 16]));
        assert_eq!(TaskId::new("ab").short(), "ab");
    }
}
