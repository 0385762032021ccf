//! **Decision.** nft's words in the `nftables` crate's types, so that rules read like rules. Pure.
//!
//! Only what mesh's rules say is here, each as short as it can be; comments show nft's own spelling.

use std::collections::HashSet;

use mesh_core::plan::Family;
use nftables::expr::{
    CT, Expression, Fib, FibFlag, FibResult, JHash, Map, Meta, MetaKey, NamedExpression, NgMode, Numgen,
    Payload, PayloadField, Range, SetItem, Verdict,
};
use nftables::stmt::{
    JumpTarget, Match, NAT, NATFamily, Operator, Reject, RejectType, Statement, VerdictMap,
};
use nftables::types::RejectCode;

pub(super) use super::values::{Expr, Word, prefix};

/// A part of a rule: a condition, or what it does.
pub(super) type Stmt = Statement<'static>;

fn named(expression: NamedExpression<'static>) -> Expr {
    Expression::Named(expression)
}

/// The number in names of a family's sets and maps.
pub(super) fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

/// A family's set or map: `@vips4`.
pub(super) fn at(name: &str, family: Family) -> Expr {
    format!("@{name}{}", digit(family)).word()
}

fn payload(protocol: &'static str, field: &'static str) -> Expr {
    let field = PayloadField { protocol: protocol.into(), field: field.into() };
    named(NamedExpression::Payload(Payload::PayloadField(field)))
}

fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// `ip saddr`
pub(super) fn saddr(family: Family) -> Expr {
    payload(ip(family), "saddr")
}

/// `ip daddr`
pub(super) fn daddr(family: Family) -> Expr {
    payload(ip(family), "daddr")
}

/// `th sport`: of whichever protocol has ports.
pub(super) fn sport() -> Expr {
    payload("th", "sport")
}

/// `th dport`
pub(super) fn dport() -> Expr {
    payload("th", "dport")
}

fn meta(key: MetaKey) -> Expr {
    named(NamedExpression::Meta(Meta { key }))
}

/// `iifname`
pub(super) fn iifname() -> Expr {
    meta(MetaKey::Iifname)
}

/// `oifname`
pub(super) fn oifname() -> Expr {
    meta(MetaKey::Oifname)
}

/// `meta iifgroup`
pub(super) fn iifgroup() -> Expr {
    meta(MetaKey::Iifgroup)
}

/// `meta oifgroup`
pub(super) fn oifgroup() -> Expr {
    meta(MetaKey::Oifgroup)
}

/// `meta l4proto`
pub(super) fn l4proto() -> Expr {
    meta(MetaKey::L4proto)
}

/// `meta nfproto ipv4`
pub(super) fn is_family(family: Family) -> Stmt {
    let name = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    is(meta(MetaKey::Nfproto), name)
}

/// `meta l4proto { tcp, udp }`
pub(super) fn has_ports() -> Stmt {
    is(l4proto(), set(["tcp", "udp"]))
}

/// `fib daddr type local`: sent to one of the node's own addresses.
pub(super) fn is_local() -> Stmt {
    let fib = Fib { result: FibResult::Type, flags: HashSet::from([FibFlag::Daddr]) };
    is(named(NamedExpression::Fib(fib)), "local")
}

fn ct(key: &'static str) -> Expr {
    named(NamedExpression::CT(CT { key: key.into(), family: None, dir: None }))
}

/// `ct state established,related`
pub(super) fn ct_state<const N: usize>(any: [&'static str; N]) -> Stmt {
    compare(Operator::IN, ct("state"), Expression::List(any.map(Word::word).into()))
}

/// `ct status dnat`
pub(super) fn ct_status(one: &'static str) -> Stmt {
    compare(Operator::IN, ct("status"), one)
}

/// `ct direction reply`
pub(super) fn is_reply() -> Stmt {
    is(ct("direction"), "reply")
}

/// `ip saddr . ip daddr`
pub(super) fn concat<const N: usize>(parts: [Expr; N]) -> Expr {
    named(NamedExpression::Concat(parts.into()))
}

/// `{ tcp, udp }`
pub(super) fn set<T: Word>(items: impl IntoIterator<Item = T>) -> Expr {
    let items = items.into_iter().map(|item| SetItem::Element(item.word()));
    named(NamedExpression::Set(items.collect()))
}

/// `{ 0 : 10.0.0.1, 1-2 : 10.0.0.2 }`
pub(super) fn table(items: impl Iterator<Item = (Expr, Expr)>) -> Expr {
    let items = items.map(|(key, value)| SetItem::Mapping(key, value));
    named(NamedExpression::Set(items.collect()))
}

/// `1-2`, or just `1`
pub(super) fn range(first: u32, last: u32) -> Expr {
    if first == last {
        return first.word();
    }
    Expression::Range(Box::new(Range { range: [first.word(), last.word()] }))
}

/// `ip daddr map @gateways4`
pub(super) fn map(key: Expr, data: Expr) -> Expr {
    named(NamedExpression::Map(Box::new(Map { key, data })))
}

/// `numgen random mod 3`
pub(super) fn random(modulus: u32) -> Expr {
    named(NamedExpression::Numgen(Numgen { mode: NgMode::Random, ng_mod: modulus, offset: None }))
}

/// `jhash ip saddr mod 251 seed 1`
pub(super) fn hash(key: Expr, modulus: u32, seed: u32) -> Expr {
    let hash = JHash { hash_mod: modulus, offset: None, expr: Box::new(key), seed: Some(seed) };
    named(NamedExpression::JHash(hash))
}

fn compare(op: Operator, left: Expr, right: impl Word) -> Stmt {
    Statement::Match(Match { left, right: right.word(), op })
}

/// Equal, or in a set.
pub(super) fn is(left: Expr, right: impl Word) -> Stmt {
    compare(Operator::EQ, left, right)
}

/// `!=`
pub(super) fn is_not(left: Expr, right: impl Word) -> Stmt {
    compare(Operator::NEQ, left, right)
}

/// `<`, which the crate (0.6.3) calls greater than: its `LT` is written `>`.
pub(super) fn below(left: Expr, right: u32) -> Stmt {
    compare(Operator::GT, left, right)
}

/// `>=`
pub(super) fn at_least(left: Expr, right: u32) -> Stmt {
    compare(Operator::GEQ, left, right)
}

/// `accept`
pub(super) fn accept() -> Stmt {
    Statement::Accept(None)
}

/// `notrack`
pub(super) fn notrack() -> Stmt {
    Statement::Notrack
}

/// `drop`
pub(super) fn discard() -> Stmt {
    Statement::Drop(None)
}

/// `return`
pub(super) fn leave() -> Stmt {
    Statement::Return(None)
}

/// `jump chain`
pub(super) fn jump(chain: &'static str) -> Stmt {
    Statement::Jump(JumpTarget { target: chain.into() })
}

/// `goto chain`
pub(super) fn goto(chain: &'static str) -> Stmt {
    Statement::Goto(JumpTarget { target: chain.into() })
}

/// `goto chain`, as the value of a map's element
pub(super) fn to_chain(chain: String) -> Expr {
    Expression::Verdict(Verdict::Goto(JumpTarget { target: chain.into() }))
}

/// `ip daddr vmap @vips4`
pub(super) fn vmap(key: Expr, data: Expr) -> Stmt {
    Statement::VerdictMap(VerdictMap { key, data })
}

/// `reject with tcp reset`
pub(super) fn reset() -> Stmt {
    Statement::Reject(Some(Reject::new(Some(RejectType::TCPReset), None)))
}

/// `reject with icmpx type port-unreachable`
pub(super) fn reject(code: RejectCode) -> Stmt {
    Statement::Reject(Some(Reject::new(Some(RejectType::ICMPX), Some(code))))
}

fn nat(family: Family, addr: Expr, port: Option<u16>) -> Option<NAT<'static>> {
    let family = match family {
        Family::V4 => NATFamily::IP,
        Family::V6 => NATFamily::IP6,
    };
    let port = port.map(|port| u32::from(port).word());
    Some(NAT { addr: Some(addr), family: Some(family), port, flags: None })
}

/// `dnat ip to 10.0.0.1:80`
pub(super) fn dnat(family: Family, to: Expr, port: Option<u16>) -> Stmt {
    Statement::DNAT(nat(family, to, port))
}

/// `snat ip to ip daddr map @gateways4`
pub(super) fn snat(family: Family, to: Expr) -> Stmt {
    Statement::SNAT(nat(family, to, None))
}

/// `masquerade`
pub(super) fn masquerade() -> Stmt {
    Statement::Masquerade(None)
}
