use super::*;

#[test]
fn an_ipv4_address_is_stored_mapped_and_comes_back() {
    let addr = Addr16::from_v4([10, 255, 0, 1]);
    assert_eq!(addr.0, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 255, 0, 1]);
    assert_eq!(addr.to_v4(), Some([10, 255, 0, 1]));
    assert_eq!(IpAddr::from(addr), "10.255.0.1".parse::<IpAddr>().unwrap());
}

#[test]
fn an_ipv6_address_is_not_taken_for_ipv4() {
    for text in ["fd00::1", "::", "::1", "::fffe:10.0.0.1", "100::ffff:10.0.0.1"] {
        let ip: IpAddr = text.parse().unwrap();
        let addr = Addr16::from(ip);
        assert_eq!(addr.to_v4(), None, "{text}");
        assert_eq!(IpAddr::from(addr), ip, "{text}");
    }
}

#[test]
fn ports_are_stored_in_network_byte_order() {
    assert_eq!(NetPort::new(80).0, [0, 80]);
    assert_eq!(NetPort::new(0x1234).0, [0x12, 0x34]);
    assert_eq!(NetPort::new(8080).number(), 8080);
    assert_eq!(NetPort::new(0), NetPort::ANY);
}

#[test]
fn the_any_port_key_differs_in_the_port_only() {
    let key = FrontendKey::new(Addr16::from_v4([10, 0, 0, 1]), NetPort::new(80), TCP);
    let any = key.any_port();
    assert_eq!((any.addr, any.proto, any.port), (key.addr, key.proto, NetPort::ANY));
    assert_ne!(key, any);
}

#[test]
fn slots_are_dealt_fairly() {
    for count in [1_u32, 2, 3, 7, 100, 1000] {
        let ids: Vec<u32> = (1..=count).collect();
        let slots = Slots::deal(&ids);
        let shares: Vec<usize> =
            ids.iter().map(|id| slots.ids.iter().filter(|slot| *slot == id).count()).collect();
        let (min, max) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        assert!(max - min <= 1, "{count} backends got between {min} and {max} slots");
        assert_eq!(shares.iter().sum::<usize>(), SLOT_COUNT as usize);
    }
}

#[test]
fn without_backends_every_slot_is_empty() {
    assert!(Slots::deal(&[]).ids.iter().all(|id| *id == NO_BACKEND));
}
