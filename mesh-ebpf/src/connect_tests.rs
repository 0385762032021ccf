use super::*;
use crate::abi::{TCP, UDP};

/// The raw words as the kernel would hand them over.
fn raw(addr: [u8; 4], port: u16) -> (u32, u32) {
    (u32::from_ne_bytes(addr), u32::from(port.to_be()))
}

#[test]
fn the_key_is_built_from_the_raw_words() {
    let (ip, port) = raw([10, 255, 0, 1], 8080);
    let key = key_v4(ip, port, u32::from(TCP)).unwrap();
    assert_eq!(key.addr, Addr16::from_v4([10, 255, 0, 1]));
    assert_eq!(key.port.number(), 8080);
    assert_eq!((key.proto, key.pad), (TCP, 0));
}

#[test]
fn a_protocol_beyond_a_byte_is_no_frontend_and_not_another_protocol() {
    let (ip, port) = raw([10, 255, 0, 1], 80);
    assert_eq!(key_v4(ip, port, 262), None);
    assert_eq!(key_v4(ip, port, 0x100 + u32::from(UDP)), None);
}

#[test]
fn every_random_number_gives_a_slot_of_the_table() {
    for random in [0, 1, SLOT_COUNT - 1, SLOT_COUNT, SLOT_COUNT + 5, 0xdead_beef, u32::MAX] {
        assert!(slot(random) < SLOT_COUNT as usize, "{random}");
    }
    assert_eq!(slot(SLOT_COUNT + 5), 5);
}

#[test]
fn the_port_is_the_backends_unless_any_port_was_asked_or_it_has_none() {
    let (asked, own) = (NetPort::new(80), NetPort::new(8080));
    assert_eq!(target_port(Match::Exact, asked, own), own);
    assert_eq!(target_port(Match::Exact, asked, NetPort::ANY), asked);
    assert_eq!(target_port(Match::AnyPort, asked, own), asked);
}

#[test]
fn the_target_is_given_as_raw_words() {
    let (ip, port) = raw([10, 255, 0, 1], 80);
    let key = key_v4(ip, port, u32::from(TCP)).unwrap();
    let backend = Backend::new(Addr16::from_v4([10, 0, 3, 7]), NetPort::new(8080));
    let (user_ip4, user_port) = raw([10, 0, 3, 7], 8080);
    assert_eq!(target_v4(Match::Exact, &key, &backend), Some(Target4 { user_ip4, user_port }));
}

#[test]
fn an_ipv6_backend_is_no_target_of_an_ipv4_connect() {
    let (ip, port) = raw([10, 255, 0, 1], 80);
    let key = key_v4(ip, port, u32::from(TCP)).unwrap();
    let backend = Backend::new(Addr16([0xfd; 16]), NetPort::new(8080));
    assert_eq!(target_v4(Match::Exact, &key, &backend), None);
}
