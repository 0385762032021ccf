//! **Decision.** Join tokens: what a new node needs to find its mesh and to be let in.
//!
//! `MESHTKN-1-<pin>-<secret>[@HOST:PORT]`, as Swarm has them (swarmkit ca/config.go). The pin is the SHA-256 of the
//! certificate of the mesh's authority: whoever has the token needs no other trust at the first contact. The secret
//! is 16 random bytes. Both are written in base 36. What a token makes of a node, when it ends and how often it may be
//! used stands in the records (`change::add_token`), where only the secret's hash is kept.

use std::fmt;
use std::hint::black_box;
use std::net::IpAddr;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// What every token begins with.
const BEGIN: &str = "MESHTKN-";
/// How many characters a pin has.
const PIN: usize = 50;
/// How many characters a secret has.
const SECRET: usize = 25;
/// Longer ones are none.
const LONGEST: usize = 400;

/// Why a text is no join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It begins differently.
    #[error(
        "this is no join token: it begins with 'MESHTKN-1-'; copy the whole of what 'mesh cluster token' prints"
    )]
    Foreign,
    /// Of a version that is not known here.
    #[error("the join token is of version '{0}', and this program knows version 1: upgrade it")]
    Version(String),
    /// A part is missing or there is one too many.
    #[error("the join token has {0} parts after its version and needs 2: copy the whole of it")]
    Parts(usize),
    /// A part is damaged.
    #[error("the join token's {part} is damaged: it needs {expected} characters of 0-9 and a-z and {why}")]
    Damaged {
        /// `pin` or `secret`.
        part: &'static str,
        /// How many characters it needs.
        expected: usize,
        /// What is wrong.
        why: String,
    },
    /// What comes after the `@` is no address.
    #[error("the join token's address '{0}' is none: write HOST:PORT or [IPV6]:PORT after the '@'")]
    Address(String),
}

/// The part of a token that only who may join knows. It is never shown but as a part of the whole token.
#[derive(Clone)]
pub struct TokenSecret([u8; 16]);

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl TokenSecret {
    /// A secret out of 16 random bytes.
    pub fn from_random(random: [u8; 16]) -> Self {
        Self(random)
    }

    /// Its SHA-256 as 64 hexadecimal digits, as it is stored.
    pub fn hash(&self) -> String {
        hex(&sha256(&self.0))
    }

    /// As it is sent to a manager, inside TLS.
    pub fn expose(&self) -> String {
        base36(&self.0, SECRET)
    }
}

impl FromStr for TokenSecret {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        part("secret", text, SECRET).map(Self)
    }
}

/// A join token, whole.
#[derive(Debug, Clone)]
pub struct JoinToken {
    /// SHA-256 of the certificate (DER) of the authority to trust.
    pub pin: [u8; 32],
    /// What proves that one may join.
    pub secret: TokenSecret,
    /// Where a manager is, `HOST:PORT`.
    pub at: Option<String>,
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BEGIN}1-{}-{}", base36(&self.pin, PIN), self.secret.expose())?;
        self.at.as_ref().map_or(Ok(()), |at| write!(f, "@{at}"))
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        let rest = text.strip_prefix(BEGIN).filter(|_| text.len() <= LONGEST).ok_or(InvalidToken::Foreign)?;
        let (rest, at) = rest.split_once('@').map_or((rest, None), |(rest, at)| (rest, Some(at)));
        let (version, rest) = rest.split_once('-').unwrap_or((rest, ""));
        if version != "1" {
            return Err(InvalidToken::Version(version.chars().take(8).collect()));
        }
        let parts: Vec<&str> = rest.split('-').filter(|part| !part.is_empty()).collect();
        let [pin, secret] = parts[..] else { return Err(InvalidToken::Parts(parts.len())) };
        let at = at.map(address).transpose()?;
        Ok(Self { pin: part("pin", pin, PIN)?, secret: secret.parse()?, at })
    }
}

/// Checks `HOST:PORT`.
fn address(text: &str) -> Result<String, InvalidToken> {
    let wrong = || InvalidToken::Address(text.to_owned());
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let sound = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => matches!(v6.parse(), Ok(IpAddr::V6(_))),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    };
    if !sound || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

fn part<const N: usize>(name: &'static str, text: &str, expected: usize) -> Result<[u8; N], InvalidToken> {
    let damaged = |why: String| InvalidToken::Damaged { part: name, expected, why };
    if text.len() != expected {
        return Err(damaged(format!("has {}", text.chars().count())));
    }
    let mut bytes = [0; N];
    for digit in text.bytes() {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'z' => digit - b'a' + 10,
            _ => return Err(damaged("has others".to_owned())),
        };
        let mut carry = u32::from(digit);
        for byte in bytes.iter_mut().rev() {
            let number = u32::from(*byte) * 36 + carry;
            *byte = (number & 0xff) as u8;
            carry = number >> 8;
        }
        if carry > 0 {
            return Err(damaged("stands for too large a number".to_owned()));
        }
    }
    Ok(bytes)
}

/// Bytes as one big number in base 36, with leading zeros.
fn base36(bytes: &[u8], width: usize) -> String {
    let mut rest = bytes.to_vec();
    let mut text = vec!['0'; width];
    for place in text.iter_mut().rev() {
        let mut remainder = 0;
        for byte in &mut rest {
            let number = remainder * 256 + u32::from(*byte);
            *byte = (number / 36) as u8;
            remainder = number % 36;
        }
        *place = char::from_digit(remainder, 36).unwrap_or('0');
    }
    text.into_iter().collect()
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether two texts are the same. The time that this takes tells nothing but lengths.
pub fn same(a: &str, b: &str) -> bool {
    let differs = a.bytes().zip(b.bytes()).fold(0, |all, (a, b)| black_box(all | (a ^ b)));
    a.len() == b.len() && black_box(differs) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_reads_as_it_was_written(pin: [u8; 32], secret: [u8; 16], at in proptest::option::of(1u16..)) {
            let at = at.map(|port| format!("[fd00::1]:{port}"));
            let token = JoinToken { pin, secret: TokenSecret::from_random(secret), at };
            let again: JoinToken = format!(" {token}\n").parse().unwrap();
            prop_assert_eq!(again.pin, pin);
            prop_assert_eq!(again.secret.0, secret);
            prop_assert_eq!(again.at, token.at);
        }

        /// Whatever people paste: an answer, never a panic, and what is taken is written the same again.
        #[test]
        fn any_text_is_a_token_or_says_why_not(text in "(MESHTKN-)?[0-9]?-?[0-9a-zA-Z@:.é-]{0,90}") {
            if let Ok(token) = text.parse::<JoinToken>() {
                prop_assert_eq!(token.to_string(), text);
            }
        }

        #[test]
        fn only_the_same_is_the_same(a in "[ab]{0,4}", b in "[ab]{0,4}") {
            prop_assert_eq!(same(&a, &b), a == b);
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let good =
            JoinToken { pin: [7; 32], secret: TokenSecret::from_random([9; 16]), at: None }.to_string();
        assert_eq!(good.len(), "MESHTKN-1-".len() + PIN + 1 + SECRET);
        let z = |count| "z".repeat(count);
        for (text, expected) in [
            (String::new(), "no join token"),
            ("SWMTKN-1-a-b".to_owned(), "no join token"),
            (good.replace("-1-", "-2-"), "of version '2'"),
            (good[..40].to_owned(), "has 1 parts"),
            (format!("{good}-x"), "has 3 parts"),
            (
                good[..good.len() - 1].to_owned(),
                "secret is damaged: it needs 25 characters of 0-9 and a-z and has 24",
            ),
            (format!("MESHTKN-1-{}-{}", z(PIN), z(SECRET)), "pin is damaged: it needs 50"),
            (format!("{}A", &good[..good.len() - 1]), "and has others"),
            (format!("{good}@host"), "address 'host' is none"),
            (format!("{good}@:7300"), "address ':7300' is none"),
            (format!("{good}@h:0"), "address 'h:0'"),
            (format!("{good}@fd00::1:7300"), "address 'fd00::1:7300'"),
        ] {
            let message = text.parse::<JoinToken>().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}\n  lacks\n{expected}");
            assert!(!message.contains(&good[61..]), "a secret is not shown: {message}");
        }
        assert_eq!(format!("{good}@n1.lan:7300").parse::<JoinToken>().unwrap().at.unwrap(), "n1.lan:7300");
    }

    #[test]
    fn a_secret_is_shown_by_nobody() {
        let token = JoinToken { pin: [0; 32], secret: TokenSecret::from_random([1; 16]), at: None };
        assert!(!format!("{token:?}").contains(&token.secret.expose()));
        assert_eq!(
            hex(&sha256(b"abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // FIPS 180-4's own example
        );
    }
}
