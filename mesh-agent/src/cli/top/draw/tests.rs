use std::time::Duration;

use mesh_core::top::{Condition, Counted, Counts, Key, Look, Node, Service, Task, Teller, Then, Top, View};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};

use super::*;

const HOST: &str = "unix:///run/mesh/mesh.sock";
const SECOND: Duration = Duration::from_secs(1);

fn text(text: &str) -> String {
    text.to_owned()
}

fn service(id: &str, name: &str, running: usize, desired: usize, port: &str) -> Service {
    Service {
        id: text(id),
        name: text(name),
        running,
        desired,
        ports: vec![text(port)],
        addresses: vec![text("10.0.0.5"), text("fd00::5")],
        networks: vec![text("app")],
        ..Service::default()
    }
}

fn task(id: &str, name: &str, (service, node): (&str, &str), condition: Condition, reason: &str) -> Task {
    Task {
        id: text(id),
        name: text(name),
        service: text(service),
        node: text(node),
        condition,
        reason: text(reason),
        weight: 1,
        addresses: vec![text("10.0.16.1")],
        ..Task::default()
    }
}

fn node(id: &str, name: &str, state: &str, availability: &str) -> Node {
    Node {
        id: text(id),
        name: text(name),
        address: text("192.0.2.7"),
        state: text(state),
        message: if state == "ready" { String::new() } else { text("it does not answer this node") },
        availability: text(availability),
        role: text("manager"),
        this: id == "a",
        problems: 0,
    }
}

/// Of everything something.
fn look(counted: Option<Counted>) -> Look {
    let teller = Teller {
        name: text("n1"),
        version: text("0.1.0"),
        counts: counted.is_some(),
        store_connected: true,
        ..Teller::default()
    };
    Look {
        teller,
        services: vec![
            Service { update: text("updating"), ..service("s1", "web", 2, 3, "8080->80/tcp") },
            service("s2", "db", 0, 1, "5432->5432/tcp"),
            service("s3", "cache", 1, 1, "6379->6379/tcp"),
        ],
        tasks: vec![
            task("t1", "web.1", ("s1", "a"), Condition::Serving, ""),
            task("t2", "web.2", ("s1", "b"), Condition::Serving, ""),
            Task { left: Some(12), ..task("t3", "web.3", ("s1", "c"), Condition::Draining, "it leaves") },
            Task {
                health: text("unhealthy"),
                ..task("t4", "db.1", ("s2", "b"), Condition::Unhealthy, "its health check fails")
            },
            Task { health: text("healthy"), ..task("t5", "cache.1", ("s3", "a"), Condition::Serving, "") },
        ],
        nodes: vec![
            node("a", "n1", "ready", "active"),
            node("b", "n2", "down", "active"),
            node("c", "n3", "ready", "drain"),
        ],
        counted,
    }
}

/// What was counted after so many seconds.
fn counted(seconds: u64) -> Counted {
    let counts = |(id, rate): (&str, u64)| {
        let n = rate * seconds;
        (text(id), Counts { flows: n, packets: 9 * n, bytes: 12_345 * n, active: rate / 3 })
    };
    let tasks = [("t1", 12), ("t2", 1_234), ("t3", 0), ("t4", 3), ("t5", 456_789)].map(counts);
    Counted { at: SECOND * seconds as u32, tasks: tasks.into() }
}

/// Two looks in.
fn top(view: View) -> Top {
    let mut top = Top::new(view, SECOND, 3 * SECOND);
    for at in 1..=2 {
        top.looked(look(Some(counted(at.into()))), at * SECOND);
    }
    top
}

fn press(top: &mut Top, keys: &str) {
    keys.chars().for_each(|letter| assert_eq!(top.press(Key::Letter(letter)), Then::Stay));
}

fn drawn(top: &mut Top, now: u32, (width, height): (u16, u16), colours: bool) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let scene = Scene { host: HOST, now: now * SECOND, palette: Palette { colours } };
    terminal.draw(|frame| draw(frame, top, &scene)).unwrap();
    terminal.backend().buffer().clone()
}

/// The lines of a picture, without blanks at their ends.
fn lines(buffer: &Buffer) -> Vec<String> {
    let line = |y| {
        let (mut line, mut x) = (String::new(), 0);
        while x < buffer.area.width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += text::width(symbol).max(1) as u16;
        }
        text(line.trim_end())
    };
    (0..buffer.area.height).map(line).collect()
}

fn picture(top: &mut Top, now: u32, size: (u16, u16)) -> String {
    let lines = lines(&drawn(top, now, size, true));
    assert!(lines.iter().all(|line| text::width(line) <= size.0.into()), "{lines:#?}");
    lines.join("\n")
}

const USUAL: (u16, u16) = (80, 24);

#[test]
fn each_view_has_its_table() {
    insta::assert_snapshot!("services", picture(&mut top(View::Services), 2, USUAL));
    insta::assert_snapshot!("tasks", picture(&mut top(View::Tasks), 2, USUAL));
    insta::assert_snapshot!("nodes", picture(&mut top(View::Nodes), 2, USUAL));
}

#[test]
fn more_columns_where_there_is_room() {
    insta::assert_snapshot!("services-wide", picture(&mut top(View::Services), 2, (120, 40)));
    insta::assert_snapshot!("tasks-wide", picture(&mut top(View::Tasks), 2, (120, 40)));
    insta::assert_snapshot!("nodes-wide", picture(&mut top(View::Nodes), 2, (120, 40)));
}

#[test]
fn the_important_stays_where_it_is_narrow() {
    for view in View::ALL {
        let name = format!("{}-narrow", view.title().to_lowercase());
        insta::assert_snapshot!(name, picture(&mut top(view), 2, (40, 10)));
    }
    // The column by which it is sorted is one of them.
    let mut top = top(View::Services);
    press(&mut top, "sss");
    assert!(picture(&mut top, 2, (40, 10)).contains("FLOWS/S↓"));
}

#[test]
fn a_window_that_is_too_small_says_so() {
    for (size, said) in [
        ((39, 24), "too small: 39×24, mesh top needs 40×8"),
        ((80, 7), "too small: 80×7, mesh top needs 40×8"),
        ((12, 1), "too small: …"),
        ((1, 1), "…"),
    ] {
        assert_eq!(picture(&mut top(View::Services), 2, size).trim_end(), said);
    }
    picture(&mut top(View::Services), 2, (0, 0));
}

#[test]
fn every_size_can_be_drawn() {
    for width in 0..130 {
        for height in [0, 1, 7, 8, 9, 12] {
            let mut top = top(View::Tasks);
            press(&mut top, "jjj");
            picture(&mut top, 9, (width, height));
        }
    }
}

#[test]
fn an_empty_mesh_says_what_to_do() {
    let mut top = Top::new(View::Services, SECOND, 3 * SECOND);
    insta::assert_snapshot!("nothing-yet", picture(&mut top, 1, (80, 8)));
    top.looked(Look { nodes: look(None).nodes, ..Look::default() }, SECOND);
    insta::assert_snapshot!("no-service", picture(&mut top, 1, (80, 8)));
    press(&mut top, "2");
    assert!(picture(&mut top, 1, USUAL).contains("no task yet"));
    top.looked(Look::default(), SECOND);
    assert!(picture(&mut top, 1, USUAL).contains("in no mesh yet"));
}

#[test]
fn who_does_not_answer_is_told_of_and_the_rest_is_old() {
    let mut lost = top(View::Services);
    lost.missed(text("connection refused. Is the agent running?"));
    insta::assert_snapshot!("no-answer", picture(&mut lost, 5, USUAL));
    let buffer = drawn(&mut lost, 5, USUAL, true);
    let rows = lines(&buffer);
    let y = rows.iter().position(|line| line.starts_with("web")).unwrap() as u16;
    assert!(buffer[(0, y)].modifier.contains(Modifier::DIM));
    assert!((0..80).all(|x| buffer[(x, y)].fg == Color::Reset));
    // Without any answer yet.
    let mut top = Top::new(View::Services, SECOND, 3 * SECOND);
    top.missed(text("no such file. Is the agent running?"));
    insta::assert_snapshot!("never-an-answer", picture(&mut top, 4, (80, 8)));
    // It is silent for too long.
    let mut top = Top::new(View::Services, SECOND, 3 * SECOND);
    assert!(!picture(&mut top, 4, USUAL).contains("no answer"));
    assert!(
        picture(&mut top, 5, USUAL)
            .contains("no answer from unix:///run/mesh/mesh.sock since 4 s: trying again")
    );
}

#[test]
fn what_is_not_counted_is_a_dash() {
    let mut top = Top::new(View::Services, SECOND, 3 * SECOND);
    (1..4).for_each(|at| top.looked(look(None), at * SECOND));
    insta::assert_snapshot!("not-counted", picture(&mut top, 3, USUAL));
    let broken = Look { teller: Teller { counts: true, ..look(None).teller }, ..look(None) };
    top.looked(broken, SECOND);
    assert!(picture(&mut top, 3, USUAL).contains("the counters of n1 cannot be read"));
}

#[test]
fn what_is_looked_for_is_shown() {
    let mut top = top(View::Tasks);
    press(&mut top, "/web");
    insta::assert_snapshot!("filter", picture(&mut top, 2, (80, 10)));
    press(&mut top, "x");
    assert!(picture(&mut top, 2, USUAL).contains("nothing matches the filter"));
}

#[test]
fn names_of_all_languages_have_their_room() {
    let mut look = look(Some(counted(1)));
    look.services[0].name = text("数据库服务器-数据库服务器-数据库服务器-数据库服务器-数据库服务器");
    look.services[1].name = text("e\u{301}te\u{301}-👩‍💻-naïve");
    look.services[2].name = "a-service-with-a-name-of-as-many-letters-as-a-name-may-have-63".to_owned();
    look.services.push(service("s4", "bad\u{1b}[31m\nname", 0, 0, ""));
    look.teller.name =
        text("knoten-mit-einem-sehr-langen-namen-der-nirgends-hineinpasst-und-noch-mehr-davon");
    let mut top = Top::new(View::Services, SECOND, 3 * SECOND);
    top.looked(look, SECOND);
    insta::assert_snapshot!("languages", picture(&mut top, 1, USUAL));
    insta::assert_snapshot!("languages-narrow", picture(&mut top, 1, (40, 10)));
}

#[test]
fn who_is_selected_is_seen_and_says_why() {
    let mut top = top(View::Tasks);
    press(&mut top, "jj");
    let buffer = drawn(&mut top, 2, USUAL, true);
    let rows = lines(&buffer);
    let y = rows.iter().position(|line| line.starts_with("db.1")).unwrap() as u16;
    assert!((0..80).all(|x| buffer[(x, y)].modifier.contains(Modifier::REVERSED)), "{rows:#?}");
    assert_eq!(rows[23], "db.1: its health check fails");
    // One further there is nothing to say, and only some of the rows have room.
    press(&mut top, "j");
    assert_eq!(lines(&drawn(&mut top, 2, (80, 8), true))[7].split("  ").next(), Some("1-3 of 5"));
}

#[test]
fn colours_can_be_read_on_black_and_on_white_and_turned_off() {
    for view in View::ALL {
        let coloured = drawn(&mut top(view), 2, USUAL, true);
        let used: Vec<_> =
            coloured.content.iter().map(|cell| cell.fg).filter(|fg| *fg != Color::Reset).collect();
        assert!(
            !used.is_empty() && used.iter().all(|fg| matches!(fg, Color::Red | Color::Magenta)),
            "{view:?}"
        );
        let plain = drawn(&mut top(view), 2, USUAL, false);
        assert!(plain.content.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
        assert_eq!(lines(&coloured), lines(&plain), "words say it all");
    }
}

#[test]
fn the_most_urgent_is_told() {
    let mut look = look(None);
    look.teller.problems = vec![text("network app: is full"), text("network b: is full")];
    let mut top = Top::new(View::Services, SECOND, 3 * SECOND);
    top.looked(look, SECOND);
    assert!(picture(&mut top, 1, USUAL).contains("\nnetwork app: is full (+1)\n"));
}

#[test]
fn keys_are_explained() {
    let mut top = top(View::Services);
    press(&mut top, "?");
    insta::assert_snapshot!("help", picture(&mut top, 2, (80, 12)));
    let small = picture(&mut top, 2, (40, 8));
    assert!(small.contains("turn the order") && small.ends_with("any key: back"), "{small}");
}
