//! Whose a descriptor is that comes back.

use std::net::Ipv4Addr;

use super::*;

const PORT: u16 = 20053;

fn found(name: &str, kind: Kind) -> Found {
    Found { name: name.to_owned(), kind }
}

fn udp() -> Kind {
    Kind::Udp(SocketAddrV4::new(SERVER, PORT))
}

fn tcp() -> Kind {
    Kind::Tcp(SocketAddrV4::new(SERVER, PORT))
}

fn task(number: u8) -> TaskId {
    TaskId::from_random([number; 16])
}

/// The name of a task's sockets.
fn called(number: u8, namespace: u64) -> String {
    name(&task(number), namespace).unwrap()
}

#[test]
fn a_name_is_one_that_managers_take() {
    let plain = called(1, u64::from(u32::MAX));
    assert!(plain.is_ascii() && !plain.contains([':', ' ']) && plain.len() < 50, "{plain}");
    for text in ["a:b", "a\nb", "ä", "a b", &"x".repeat(255)] {
        assert_eq!(name(&TaskId::new(text), 7), None, "{text}");
    }
    // No two are called the same.
    let names: BTreeSet<_> =
        (0..9).flat_map(|number| (0..9).map(move |space| called(number, space))).collect();
    assert_eq!(names.len(), 81);
}

#[test]
fn each_task_gets_its_own_back() {
    let (one, two) = (called(1, 71), called(2, 72));
    let all = [
        found(&two, tcp()),
        found("sshd", Kind::Other),
        found(&one, udp()),
        found(&two, udp()),
        found(&one, tcp()),
    ];
    assert_eq!(pair(&all, &task(1), 71), Some(Pair { udp: 2, tcp: 4 }));
    assert_eq!(pair(&all, &task(2), 72), Some(Pair { udp: 3, tcp: 0 }));
    assert!(!all[1].is_ours() && all[2].is_ours());
}

#[test]
fn of_another_namespace_nothing_is_taken() {
    let one = called(1, 71);
    let all = [found(&one, udp()), found(&one, tcp())];
    // The task has another one by now, or another task has this one.
    assert_eq!(pair(&all, &task(1), 72), None);
    assert_eq!(pair(&all, &task(2), 71), None);
    assert_eq!(pair(&all, &task(1), 7), None);
}

#[test]
fn half_a_pair_is_none_and_so_is_more_than_one() {
    let one = called(1, 71);
    let elsewhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT);
    let nowhere = SocketAddrV4::new(SERVER, 0);
    for kinds in [
        &[][..],
        &[udp()],
        &[tcp()],
        &[udp(), udp()],
        &[tcp(), tcp()],
        &[udp(), tcp(), udp()],
        &[udp(), tcp(), Kind::Other],
        &[udp(), Kind::Other],
        &[Kind::Udp(elsewhere), tcp()],
        &[udp(), Kind::Tcp(elsewhere)],
        &[Kind::Udp(nowhere), tcp()],
    ] {
        let all: Vec<_> = kinds.iter().map(|kind| found(&one, *kind)).collect();
        assert_eq!(pair(&all, &task(1), 71), None, "{kinds:?}");
    }
}

#[test]
fn what_is_nobodys_is_taken_away_and_a_strangers_is_not() {
    let (one, two, three) = (called(1, 71), called(2, 72), called(3, 73));
    let names = [&one, &one, &two, &three, "sshd", "stored"];
    let mut shelf = Shelf::of(&names.map(|name| found(name, Kind::Other)));
    shelf.found(&task(1), 71);
    // What cannot be taken over makes room for what is opened in its place.
    assert_eq!(shelf.clear(&task(2), 72), Some(two.clone()));
    assert_eq!(shelf.clear(&task(2), 72), None);
    assert_eq!(shelf.put(&task(2), 72), Some(two.clone()));
    assert_eq!(shelf.take_rest(), [three].into());
    assert_eq!(shelf.take_rest(), BTreeSet::new());
    assert_eq!(shelf.take(&task(1)), Some(one));
    assert_eq!(shelf.take(&task(1)), None);
    assert_eq!(shelf.take(&task(2)), Some(two));
}

#[test]
fn names_never_outgrow_a_variable() {
    let id = |number: u32| TaskId::new(format!("{number:025}"));
    let mut shelf = Shelf::default();
    let taken = (0..5000).map_while(|number| shelf.put(&id(number), 4_026_532_000)).collect::<Vec<_>>();
    let bytes: usize = taken.iter().map(|name| 2 * (name.len() + 1)).sum();
    assert!(taken.len() > 1300 && bytes + "LISTEN_FDNAMES=".len() < 128 << 10, "{} {bytes}", taken.len());
    // Who is there already may come again, and who goes leaves room.
    assert_eq!(shelf.put(&id(0), 4_026_532_000).as_ref(), Some(&taken[0]));
    assert_eq!(shelf.put(&id(6000), 4_026_532_000), None);
    shelf.take(&id(0));
    assert!(shelf.put(&id(6000), 4_026_532_000).is_some());
}
