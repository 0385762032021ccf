//! **Decision.** What `--publish` says: Docker's short form, ranges, and long form, with Docker's error texts.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;

use crate::api::types::{PortConfig, PortRef, Protocol, PublishMode};

/// `-p 8080:80`, `-p 127.0.0.1:8080-8082:80-82/udp`, `-p published=8080,target=80,mode=host`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publish(pub(super) Vec<PortConfig>);

/// `--publish-rm 80`, `--publish-rm 8080:80/udp`, `--publish-rm target=80,mode=host`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unpublish(pub(super) Vec<PortRef>);

type Range = RangeInclusive<u16>;

/// What both forms say.
#[derive(Default)]
struct Wish {
    published: Option<Range>,
    target: Option<Range>,
    protocol: Option<Protocol>,
    mode: Option<PublishMode>,
    host_ip: Vec<IpAddr>,
    nodes: Vec<String>,
    allow: Vec<IpNet>,
}

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wish = Wish::parse(text)?;
        let target = wish.target.ok_or("missing mandatory field 'target'")?;
        let published = wish.published.ok_or_else(|| {
            format!(
                "'{text}' names no port to publish: write PUBLISHED:TARGET, such as 8080:{}",
                target.start()
            )
        })?;
        let pairs = pair(&published, &target)?;
        let port = |(published_port, target_port)| PortConfig {
            protocol: wish.protocol.unwrap_or(Protocol::Tcp),
            target_port,
            published_port,
            publish_mode: wish.mode.unwrap_or(PublishMode::Ingress),
            host_ip: wish.host_ip.clone(),
            nodes: wish.nodes.clone(),
            allow: wish.allow.clone(),
        };
        Ok(Self(pairs.into_iter().map(port).collect()))
    }
}

impl FromStr for Unpublish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wish = Wish::parse(text)?;
        let target = wish.target.ok_or("missing mandatory field 'target'")?;
        let port = |published_port, target_port| PortRef {
            published_port,
            target_port,
            protocol: wish.protocol.unwrap_or(Protocol::Tcp),
            publish_mode: wish.mode.unwrap_or(PublishMode::Ingress),
        };
        Ok(Self(match wish.published {
            Some(published) => {
                pair(&published, &target)?.into_iter().map(|(p, t)| port(Some(p), t)).collect()
            }
            None => target.map(|target| port(None, target)).collect(),
        }))
    }
}

/// As many targets as ports, or one for all of them.
fn pair(published: &Range, target: &Range) -> Result<Vec<(u16, u16)>, String> {
    if target.len() == 1 {
        return Ok(published.clone().map(|port| (port, *target.start())).collect());
    }
    if published.len() != target.len() {
        let text = |range: &Range| format!("{}-{}", range.start(), range.end());
        return Err(format!(
            "invalid ranges specified for container and host Ports: {} and {}",
            text(target),
            text(published)
        ));
    }
    Ok(published.clone().zip(target.clone()).collect())
}

impl Wish {
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains('=') { Self::long(text) } else { Self::short(text) }
    }

    fn short(text: &str) -> Result<Self, String> {
        let mut wish = Self::default();
        let (ports, protocol) = match text.split_once('/') {
            Some((ports, protocol)) => (ports, Some(protocol)),
            None => (text, None),
        };
        wish.protocol =
            protocol.map(|p| parse_protocol(p).ok_or(format!("invalid proto: {p}"))).transpose()?;
        let (rest, target) = match ports.rsplit_once(':') {
            Some((rest, target)) => (Some(rest), target),
            None => (None, ports),
        };
        wish.target = Some(range(target).ok_or(format!("invalid containerPort: {target}"))?);
        let Some(rest) = rest else { return Ok(wish) };
        let (address, published) = match rest.rsplit_once(':') {
            Some((address, published)) => (Some(address), published),
            None => (None, rest),
        };
        wish.published = Some(range(published).ok_or(format!("invalid hostPort: {published}"))?);
        if let Some(address) = address {
            wish.host_ip.push(parse_ip(address)?);
        }
        Ok(wish)
    }

    fn long(text: &str) -> Result<Self, String> {
        let mut wish = Self::default();
        for field in text.split(',') {
            let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid field: {field}"))?;
            match key.to_ascii_lowercase().as_str() {
                "published" => {
                    let wrong = || format!("invalid published port ({value}): value must be an integer");
                    wish.published = Some(range(value).ok_or_else(wrong)?);
                }
                "target" => {
                    let wrong = || format!("invalid target port ({value}): value must be an integer");
                    wish.target = Some(range(value).ok_or_else(wrong)?);
                }
                "protocol" => {
                    wish.protocol = Some(
                        parse_protocol(value).ok_or_else(|| format!("invalid protocol value '{value}'"))?,
                    );
                }
                "mode" => {
                    wish.mode = Some(match value.to_ascii_lowercase().as_str() {
                        "ingress" => PublishMode::Ingress,
                        "host" => PublishMode::Host,
                        _ => {
                            return Err(format!(
                                "invalid publish mode value ({value}): must be either 'ingress' or 'host'"
                            ));
                        }
                    });
                }
                "host_ip" => wish.host_ip = value.split(';').map(parse_ip).collect::<Result<_, _>>()?,
                "nodes" => wish.nodes = value.split(';').map(str::to_owned).collect(),
                "allow" => wish.allow = value.split(';').map(parse_net).collect::<Result<_, _>>()?,
                _ => {
                    return Err(format!(
                        "invalid field key {key}: there are published, target, protocol, mode, host_ip, nodes, allow"
                    ));
                }
            }
        }
        Ok(wish)
    }
}

fn range(text: &str) -> Option<Range> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0 && !text.starts_with('+'));
    let range = port(start)?..=port(end)?;
    (!range.is_empty()).then_some(range)
}

fn parse_protocol(text: &str) -> Option<Protocol> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    }
}

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| format!("invalid IP address: {text}"))
}

fn parse_net(text: &str) -> Result<IpNet, String> {
    let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map_err(|_| format!("invalid CIDR: {text}"))
}

#[cfg(test)]
mod tests;
