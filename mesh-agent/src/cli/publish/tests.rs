use super::*;
use crate::cli::ports::fold;

fn parse(text: &str) -> String {
    match text.parse::<Publish>() {
        Ok(Publish(ports)) => fold(&ports),
        Err(error) => error,
    }
}

#[test]
fn short_forms() {
    for (text, ports) in [
        ("8080:80", "*:8080->80/tcp"),
        ("53:5353/udp", "*:53->5353/udp"),
        ("80:80/TCP", "*:80->80/tcp"),
        ("8080-8082:80-82", "*:8080-8082->80-82/tcp"),
        ("127.0.0.1:8080:80", "127.0.0.1:8080->80/tcp"),
        ("[::1]:8080:80/udp", "[::1]:8080->80/udp"),
        ("8080-8081:80", "*:8080->80/tcp, *:8081->80/tcp"),
    ] {
        assert_eq!(parse(text), ports, "{text}");
    }
}

#[test]
fn long_forms() {
    assert_eq!(parse("published=8080,target=80,protocol=udp,mode=host"), "*:8080->80/udp (host)");
    assert_eq!(parse("Published=8080,TARGET=80,Mode=Ingress"), "*:8080->80/tcp");
    let Publish(ports) =
        "published=443,target=8443,host_ip=10.0.0.1;fd00::1,nodes=a;b,allow=10.0.0.0/8;192.0.2.7"
            .parse()
            .unwrap();
    let port = &ports[0];
    assert_eq!(port.nodes, ["a", "b"]);
    assert_eq!(port.host_ip.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.1", "fd00::1"]);
    assert_eq!(
        port.allow.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.0/8", "192.0.2.7/32"]
    );
}

#[test]
fn errors_are_dockers() {
    for (text, error) in [
        (
            "published=80,target=80,mode=x",
            "invalid publish mode value (x): must be either 'ingress' or 'host'",
        ),
        ("published=80", "missing mandatory field 'target'"),
        ("published=x,target=80", "invalid published port (x): value must be an integer"),
        ("published=80,target=0", "invalid target port (0): value must be an integer"),
        ("target=80,protocol=sctp,published=80", "invalid protocol value 'sctp'"),
        ("target=80,published", "invalid field: published"),
        ("target=80,color=red", "invalid field key color: there are published,"),
        ("8080:80/sctp", "invalid proto: sctp"),
        ("8080:99999", "invalid containerPort: 99999"),
        ("x:80", "invalid hostPort: x"),
        ("8082-8080:80", "invalid hostPort: 8082-8080"),
        ("8080-8082:80-81", "invalid ranges specified for container and host Ports: 80-81 and 8080-8082"),
        ("80", "'80' names no port to publish: write PUBLISHED:TARGET, such as 8080:80"),
        ("eth0:80:80", "invalid IP address: eth0"),
        ("", "invalid containerPort: "),
        ("published=1,target=1,allow=all", "invalid CIDR: all"),
    ] {
        assert!(parse(text).starts_with(error), "{text}: {}", parse(text));
    }
}

#[test]
fn what_to_take_back_is_named_by_its_target() {
    for text in ["80", "8080:80", "80/tcp", "target=80"] {
        let Unpublish(ports) = text.parse().unwrap();
        assert_eq!((ports.len(), ports[0].target_port, ports[0].protocol), (1, 80, Protocol::Tcp), "{text}");
    }
    let Unpublish(ports) = "target=80-81,mode=host,protocol=udp".parse().unwrap();
    assert_eq!((ports.len(), ports[1].target_port, ports[1].publish_mode), (2, 81, PublishMode::Host));
}
