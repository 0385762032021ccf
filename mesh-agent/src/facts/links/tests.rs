//! Tables as `/proc` prints them.

use super::*;

const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0100007F:D431 0100007F:0BB8 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 20 4 30 10 -1
";
const TCP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000
   2: 0000000000000000FFFF00000100007F:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000
";
const UDP: &str = "\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  12: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 4 2 0 0
  13: 0100007F:9C40 0100007F:0035 01 00000000:00000000 00:00000000 00000000   101        0 5 2 0 0
";

fn listener(protocol: Protocol, address: &str, port: u16) -> Listener {
    Listener { protocol, port, address: address.parse().unwrap() }
}

#[test]
#[cfg(target_endian = "little")]
fn only_sockets_that_wait_for_anybody_are_listeners() {
    let found: Vec<_> = parse_sockets(TCP, Protocol::Tcp).collect();
    assert_eq!(found, [listener(Protocol::Tcp, "127.0.0.1", 3000), listener(Protocol::Tcp, "0.0.0.0", 22)]);
    let found: Vec<_> = parse_sockets(UDP, Protocol::Udp).collect();
    assert_eq!(found, [listener(Protocol::Udp, "127.0.0.53", 53)]);
}

#[test]
#[cfg(target_endian = "little")]
fn ipv6_addresses_are_read_and_mapped_ones_are_ipv4() {
    let found: Vec<_> = parse_sockets(TCP6, Protocol::Tcp).collect();
    assert_eq!(
        found,
        [
            listener(Protocol::Tcp, "::", 80),
            listener(Protocol::Tcp, "::1", 8080),
            listener(Protocol::Tcp, "127.0.0.1", 8081)
        ]
    );
}

#[test]
fn nonsense_is_left_out() {
    assert_eq!(parse_sockets("head\n 0: zz:zz 0 0A\n\n 1: 0100007F\n", Protocol::Tcp).count(), 0);
    assert_eq!(parse_sockets("", Protocol::Udp).count(), 0);
}

#[tokio::test]
async fn a_port_of_this_process_is_seen() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    assert!(listeners().await.contains(&listener(Protocol::Tcp, "127.0.0.1", port)));
}

#[tokio::test]
async fn loopback_has_an_mtu_and_a_missing_address_is_named() {
    assert!(uplink_mtu("127.0.0.1".parse().unwrap()).await.unwrap() >= 1500);
    let error = uplink_mtu("192.0.2.77".parse().unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("192.0.2.77; it has") && error.contains("127.0.0.1"), "{error}");
}

#[test]
fn routes_of_one_link_are_not_in_the_way() {
    for address in ["fe80::1", "ff02::1", "169.254.3.4", "224.0.0.1", "127.0.0.1", "::1"] {
        assert!(of_one_link(address.parse().unwrap()), "{address}");
    }
    assert!(!of_one_link("10.0.0.0".parse().unwrap()));
}
