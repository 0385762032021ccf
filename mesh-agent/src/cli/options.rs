//! **Decision.** Values of flags that several verbs share.

use std::collections::BTreeMap;
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use ipnet::IpNet;

use crate::api::types::{
    Affinity, AffinityMode, NetworkTarget, PortName, Protocol, format_duration, parse_duration,
};

/// `--label k=v`; without a value it is empty, as in Docker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyValue {
    pub(super) key: String,
    pub(super) value: String,
}

impl FromStr for KeyValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() {
            return Err(format!("'{text}' has no key: write KEY=VALUE"));
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

/// The last of several values for a key counts.
pub(super) fn map(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|KeyValue { key, value }| (key, value)).collect()
}

/// `--network app`, `--network name=app,alias=db`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attach(pub(super) NetworkTarget);

impl FromStr for Attach {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut name = None;
        let mut aliases = Vec::new();
        for (place, field) in text.split(',').enumerate() {
            match field.split_once('=') {
                None if place == 0 => name = Some(field.to_owned()),
                Some(("name", value)) if name.is_none() => name = Some(value.to_owned()),
                Some(("alias", value)) => aliases.push(value.to_owned()),
                _ => return Err(format!("invalid field '{field}': write NAME[,alias=ALIAS]…")),
            }
        }
        let target =
            name.filter(|name| !name.is_empty()).ok_or_else(|| format!("'{text}' names no network"))?;
        Ok(Self(NetworkTarget { target, aliases }))
    }
}

/// `on`, `off`
pub(super) fn switch() -> impl TypedValueParser<Value = bool> {
    PossibleValuesParser::new(["on", "off"]).map(|word| word == "on")
}

/// `--port-name http=80`, `--port-name dns=53/udp`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedPort(pub(super) PortName);

impl FromStr for NamedPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("invalid port name '{text}': write NAME=PORT or NAME=PORT/PROTOCOL, such as http=80");
        let (name, port) = text.split_once('=').ok_or_else(wrong)?;
        let (port, protocol) = match port.split_once('/').unwrap_or((port, "tcp")) {
            (port, "tcp") => (port, Protocol::Tcp),
            (port, "udp") => (port, Protocol::Udp),
            _ => return Err(wrong()),
        };
        let target_port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        Ok(Self(PortName { name: name.to_owned(), target_port, protocol }))
    }
}

/// A duration, passed on as it was written once it is known to be one.
pub(super) fn duration(text: &str) -> Result<String, String> {
    parse_duration(text).map(format_duration)
}

/// A duration, or `default`.
pub(super) fn idle_timeout(text: &str) -> Result<String, String> {
    if text == "default" { Ok(text.to_owned()) } else { duration(text) }
}

/// `none`, `client-ip`, `client-ip=10m`
pub(super) fn affinity(text: &str) -> Result<Affinity, String> {
    match text.split_once('=').unwrap_or((text, "")) {
        ("none", "") => Ok(Affinity { mode: AffinityMode::None, timeout: None }),
        ("client-ip", "") if !text.contains('=') => {
            Ok(Affinity { mode: AffinityMode::ClientIp, timeout: None })
        }
        ("client-ip", timeout) => {
            Ok(Affinity { mode: AffinityMode::ClientIp, timeout: Some(duration(timeout)?) })
        }
        _ => Err(format!(
            "invalid affinity value ({text}): must be 'none', 'client-ip' or 'client-ip=DURATION'"
        )),
    }
}

/// A subnet, with a hint where its length is missing.
pub(super) fn subnet(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| match text.parse::<std::net::IpAddr>() {
        Ok(ip) if ip.is_ipv4() => {
            format!("invalid subnet {text}: its length is missing; did you mean {text}/24?")
        }
        Ok(_) => format!("invalid subnet {text}: its length is missing; did you mean {text}/64?"),
        Err(_) => format!("invalid subnet {text}: write ADDRESS/LENGTH, such as 10.1.0.0/16"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_networks_affinities_and_subnets() {
        assert_eq!("a=b=c".parse(), Ok(KeyValue { key: "a".to_owned(), value: "b=c".to_owned() }));
        assert_eq!("a".parse::<KeyValue>().unwrap().value, "");
        assert!("=b".parse::<KeyValue>().is_err());
        for text in ["app,alias=db,alias=x", "name=app,alias=db,alias=x"] {
            let Attach(target) = text.parse().unwrap();
            assert_eq!((target.target.as_str(), target.aliases.len()), ("app", 2));
        }
        assert!("alias=x".parse::<Attach>().unwrap_err().contains("names no network"));
        assert!("app,ip=1".parse::<Attach>().unwrap_err().contains("invalid field 'ip=1'"));
        for (text, port, protocol) in [
            ("http=80", 80, Protocol::Tcp),
            ("http=80/tcp", 80, Protocol::Tcp),
            ("dns=53/udp", 53, Protocol::Udp),
        ] {
            let NamedPort(named) = text.parse().unwrap();
            assert_eq!((named.target_port, named.protocol), (port, protocol));
        }
        for text in ["http", "http=0", "http=x", "http=80/sctp"] {
            assert!(text.parse::<NamedPort>().unwrap_err().contains("such as http=80"));
        }
        assert_eq!(affinity("client-ip=600s").unwrap().timeout.as_deref(), Some("10m"));
        assert_eq!(affinity("client-ip").unwrap().timeout, None);
        assert!(affinity("cookie").unwrap_err().contains("must be 'none'"));
        assert!(affinity("client-ip=").is_err());
        assert_eq!(idle_timeout("90s"), Ok("1m30s".to_owned()));
        assert_eq!(["default", "0"].map(idle_timeout), [Ok("default".to_owned()), Ok("0s".to_owned())]);
        assert!(idle_timeout("never").unwrap_err().contains("invalid duration"));
        assert!(subnet("10.0.3.0").unwrap_err().contains("did you mean 10.0.3.0/24?"));
        assert!(subnet("x").is_err() && subnet("10.0.0.0/16").is_ok());
    }
}
