//! **Decision.** Addresses, names and numbers in the `nftables` crate's types, and back in nft's words. Pure.

use std::fmt::{self, Display};
use std::net::IpAddr;

use ipnet::IpNet;
use nftables::expr::{Expression, NamedExpression, Prefix, Verdict};

/// What a rule compares, looks up or translates to.
pub(super) type Expr = Expression<'static>;

/// What can stand for a value.
pub(super) trait Word {
    /// As the crate has it.
    fn word(self) -> Expr;
}

impl Word for Expr {
    fn word(self) -> Expr {
        self
    }
}

impl Word for &'static str {
    fn word(self) -> Expr {
        Expression::String(self.into())
    }
}

impl Word for String {
    fn word(self) -> Expr {
        Expression::String(self.into())
    }
}

impl Word for u32 {
    fn word(self) -> Expr {
        Expression::Number(self)
    }
}

impl Word for IpAddr {
    fn word(self) -> Expr {
        self.to_string().word()
    }
}

/// As nft prints it: a single address without its length.
impl Word for IpNet {
    fn word(self) -> Expr {
        let net = self.trunc();
        if net.prefix_len() == net.max_prefix_len() {
            return net.addr().word();
        }
        prefix(net.addr(), net.prefix_len())
    }
}

/// `127.0.0.0/8`
pub(super) fn prefix(address: impl Word, length: u8) -> Expr {
    let prefix = Prefix { addr: Box::new(address.word()), len: length.into() };
    Expression::Named(NamedExpression::Prefix(prefix))
}

/// An element's key or value in nft's words. What we never write prints as something that we never write.
pub(super) struct Words<'a>(pub(super) &'a Expr);

impl Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expression::String(text) => f.write_str(text),
            Expression::Number(number) => number.fmt(f),
            Expression::Named(NamedExpression::Prefix(prefix)) => {
                write!(f, "{}/{}", Words(&prefix.addr), prefix.len)
            }
            Expression::Named(NamedExpression::Concat(parts)) => {
                for (index, part) in parts.iter().enumerate() {
                    write!(f, "{}{}", if index == 0 { "" } else { " . " }, Words(part))?;
                }
                Ok(())
            }
            Expression::Verdict(Verdict::Goto(to)) => write!(f, "goto {}", to.target),
            other => write!(f, "{other:?}"),
        }
    }
}
