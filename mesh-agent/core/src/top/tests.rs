use super::*;

fn text(text: &str) -> String {
    text.to_owned()
}

fn task(id: &str, name: &str, (service, node): (&str, &str), condition: Condition) -> Task {
    let number = id.trim_start_matches('t');
    Task {
        id: text(id),
        name: text(name),
        service: text(service),
        node: text(node),
        condition,
        weight: 1,
        addresses: vec![format!("10.0.16.{number}")],
        ..Task::default()
    }
}

/// Two services on two nodes, of which one is drained.
pub(super) fn look() -> Look {
    let service = |id: &str, name: &str, running, desired| Service {
        id: text(id),
        name: text(name),
        running,
        desired,
        networks: vec![text("app")],
        ..Service::default()
    };
    let node = |id: &str, name: &str, availability: &str| Node {
        id: text(id),
        name: text(name),
        state: text("ready"),
        availability: text(availability),
        this: id == "a",
        ..Node::default()
    };
    let teller = Teller { name: text("n1"), counts: true, store_connected: true, ..Teller::default() };
    Look {
        teller,
        services: vec![
            Service { ports: vec![text("8080->80/tcp")], ..service("s1", "web", 2, 2) },
            service("s2", "db", 0, 1),
        ],
        tasks: vec![
            task("t1", "web.1", ("s1", "a"), Condition::Serving),
            task("t2", "web.2", ("s1", "b"), Condition::Serving),
            Task {
                reason: text("its health check fails"),
                health: text("unhealthy"),
                ..task("t3", "db.1", ("s2", "b"), Condition::Unhealthy)
            },
            task("t4", "look", ("", "a"), Condition::Running),
        ],
        nodes: vec![node("a", "n1", "active"), node("b", "n2", "drain")],
        counted: None,
    }
}

/// The same, when so much was counted.
fn counted(millis: u64, counts: &[(&str, u64)]) -> Look {
    let of = |n: u64| Counts { flows: n, packets: 5 * n, bytes: 1_000 * n, active: n };
    let tasks = counts.iter().map(|(id, n)| (text(id), of(*n))).collect();
    Look { counted: Some(Counted { at: Duration::from_millis(millis), tasks }), ..look() }
}

const SECOND: Duration = Duration::from_secs(1);

fn top(view: View) -> Top {
    let mut top = Top::new(view, SECOND, 3 * SECOND);
    top.looked(counted(1_000, &[("t1", 10), ("t2", 10)]), SECOND);
    top.looked(counted(2_000, &[("t1", 12), ("t2", 40)]), 2 * SECOND);
    top
}

fn names(top: &Top) -> Vec<String> {
    top.rows().into_iter().map(|row| row.name).collect()
}

fn press(top: &mut Top, keys: &str) {
    for letter in keys.chars() {
        assert_eq!(top.press(Key::Letter(letter)), Then::Stay, "{letter}");
    }
}

/// A cell by the name of its column.
fn cell(top: &Top, row: usize, field: &str) -> String {
    let place = top.view().columns().iter().position(|column| column.field == field).unwrap();
    top.rows()[row].cells[place].text()
}

#[test]
fn rows_have_a_cell_for_each_column() {
    for view in View::ALL {
        let rows = top(view).rows();
        assert!(
            !rows.is_empty() && rows.iter().all(|row| row.cells.len() == view.columns().len()),
            "{view:?}"
        );
    }
}

#[test]
fn services_have_the_sums_of_their_tasks() {
    let top = top(View::Services);
    assert_eq!(names(&top), ["db", "web"]);
    let fields = ["Tasks", "State", "FlowsPerSecond", "BytesPerSecond", "PacketsPerSecond", "Active"];
    let row = |row| fields.map(|field| cell(&top, row, field));
    assert_eq!(row(0), ["0/1", "1 unhealthy", "-", "-", "-", "-"]);
    assert_eq!(row(1), ["2/2", "serving", "32", "32k", "160", "52"]);
    assert_eq!(top.total().flows, Some(32.0));
}

#[test]
fn nodes_have_what_is_sent_to_them_and_what_is_wanted_of_them() {
    let top = top(View::Nodes);
    assert_eq!(names(&top), ["n1", "n2"]);
    let row = |row| ["State", "Availability", "Tasks", "FlowsPerSecond"].map(|field| cell(&top, row, field));
    assert_eq!(row(0), ["ready", "active", "2/2", "2"]);
    assert_eq!(row(1), ["ready", "drain", "1/2", "30"]);
}

#[test]
fn what_nobody_counts_is_never_zero() {
    let mut top = Top::new(View::Services, SECOND, SECOND);
    for at in 1..4 {
        top.looked(look(), at * SECOND);
    }
    for view in View::ALL {
        top.go_to(view);
        for row in 0..top.rows().len() {
            for field in ["FlowsPerSecond", "BytesPerSecond", "PacketsPerSecond", "Active"] {
                assert_eq!(cell(&top, row, field), "-", "{view:?} {field}");
            }
        }
    }
    assert_eq!(top.total(), Rate::default());
}

impl Top {
    fn go_to(&mut self, view: View) {
        self.view = view;
    }
}

#[test]
fn a_service_says_what_is_wrong_with_it() {
    let state = |running, desired, conditions: &[Condition]| {
        let mut look = look();
        look.services = vec![Service { id: text("s1"), running, desired, ..Service::default() }];
        let tasks = conditions.iter().enumerate();
        look.tasks =
            tasks.map(|(n, condition)| task(&format!("t{n}"), "x", ("s1", "a"), *condition)).collect();
        let row = rows(&look, &Rates::default(), View::Services, &Filter::default()).remove(0);
        (row.cells[2].text(), row.cells[2].mood())
    };
    use Condition::{Draining, Ejected, Ended, Failed, Serving, Starting, Unhealthy};
    let told = |text: &str, mood| (text.to_owned(), mood);
    assert_eq!(state(0, 0, &[]), told("no tasks", Mood::Warn));
    assert_eq!(state(0, 0, &[Ended]), told("no tasks", Mood::Warn));
    assert_eq!(state(0, 2, &[]), told("2 tasks missing", Mood::Bad));
    assert_eq!(state(2, 2, &[Serving, Serving, Ended, Failed]), told("serving", Mood::Good));
    assert_eq!(state(1, 2, &[Serving, Failed]), told("1 failed", Mood::Bad));
    assert_eq!(state(0, 1, &[Draining]), told("1 draining", Mood::Bad));
    assert_eq!(
        state(2, 6, &[Serving, Starting, Draining, Unhealthy, Ejected, Unhealthy, Serving]),
        told("2 unhealthy, 1 left out, 1 draining, 1 starting", Mood::Bad)
    );
    assert_eq!(state(1, 2, &[Serving, Draining]), told("1 draining", Mood::Warn));
}

#[test]
fn it_is_sorted_by_what_was_chosen() {
    let mut top = top(View::Tasks);
    assert_eq!(names(&top), ["db.1", "look", "web.1", "web.2"]);
    press(&mut top, "r");
    assert_eq!(names(&top), ["web.2", "web.1", "look", "db.1"]);
    // To the flows, the most first, and who has no number last, also turned round.
    press(&mut top, "s>ss");
    assert_eq!(names(&top), ["web.2", "web.1", "db.1", "look"]);
    press(&mut top, "r");
    assert_eq!(names(&top), ["web.1", "web.2", "db.1", "look"]);
    press(&mut top, "<");
    assert_eq!(top.order(), Order { column: 3, down: false });
    press(&mut top, "<<<<");
    assert_eq!(top.order().column, View::Tasks.columns().len() - 1);
    // Each view has its own.
    press(&mut top, "1");
    assert_eq!(top.order().column, 0);
}

#[test]
fn views_are_reached_by_their_number_and_by_tab() {
    let mut top = top(View::Services);
    press(&mut top, "2");
    assert_eq!(top.view(), View::Tasks);
    top.press(Key::Tab);
    top.press(Key::Tab);
    assert_eq!(top.view(), View::Services);
    top.press(Key::BackTab);
    assert_eq!(top.view(), View::Nodes);
}

#[test]
fn who_is_selected_stays_so_when_the_order_changes() {
    let mut top = top(View::Tasks);
    press(&mut top, "jjj");
    let selected = |top: &mut Top| {
        let page = top.page(10);
        page.selected.map(|at| page.rows[at].name.clone())
    };
    assert_eq!(selected(&mut top), Some(text("web.1")));
    press(&mut top, "ssssr");
    assert_eq!(selected(&mut top), Some(text("web.1")));
    assert_eq!(top.page(10).selected, Some(0));
    // Also while another is busier.
    press(&mut top, "r");
    top.looked(counted(3_000, &[("t1", 12), ("t2", 41)]), 3 * SECOND);
    assert_eq!((selected(&mut top), top.page(10).selected), (Some(text("web.1")), Some(1)));
    top.looked(counted(4_000, &[("t1", 99), ("t2", 41)]), 4 * SECOND);
    assert_eq!((selected(&mut top), top.page(10).selected), (Some(text("web.1")), Some(0)));
    // Up to the first, and to nobody.
    top.press(Key::Home);
    assert_eq!(selected(&mut top), None);
    top.press(Key::End);
    assert_eq!((top.page(2).selected, top.page(2).above), (Some(3), 2));
}

#[test]
fn what_is_typed_filters() {
    let mut top = top(View::Tasks);
    press(&mut top, "/we");
    assert_eq!((top.filter(), names(&top)), (("we", true), vec![text("web.1"), text("web.2")]));
    // Letters are letters there, and arrows go on.
    press(&mut top, "q");
    assert_eq!(names(&top), [""; 0]);
    top.press(Key::Backspace);
    top.press(Key::Down);
    assert_eq!(top.page(10).selected, Some(0));
    top.press(Key::Enter);
    assert_eq!(top.filter(), ("we", false));
    press(&mut top, "j");
    assert_eq!(top.page(10).selected, Some(1));
    press(&mut top, "/");
    assert_eq!(top.press(Key::Escape), Then::Stay);
    assert_eq!((top.filter(), names(&top).len()), (("", false), 4));
    assert_eq!(top.press(Key::Escape), Then::Quit);
}

#[test]
fn a_service_leads_to_its_tasks() {
    let mut top = top(View::Services);
    top.press(Key::Enter);
    assert_eq!(top.view(), View::Services, "nobody is selected");
    press(&mut top, "jj");
    top.press(Key::Enter);
    assert_eq!(
        (top.view(), top.filter().0, names(&top)),
        (View::Tasks, "service:web", vec![text("web.1"), text("web.2")])
    );
    // And back.
    assert_eq!(top.press(Key::Escape), Then::Stay);
    assert_eq!((top.view(), names(&top).len()), (View::Services, 2));
    press(&mut top, "3jj");
    top.press(Key::Enter);
    assert_eq!(names(&top), ["db.1", "web.2"]);
    // Who went on from there stays.
    press(&mut top, "3");
    assert_eq!(top.press(Key::Escape), Then::Stay);
    assert_eq!((top.view(), names(&top).len()), (View::Nodes, 2));
    assert_eq!(top.press(Key::Escape), Then::Quit);
}

#[test]
fn keys_are_explained_and_end_it() {
    let mut top = top(View::Services);
    press(&mut top, "?");
    assert!(top.help());
    // Any key goes back, without doing what it does elsewhere.
    press(&mut top, "q");
    assert!(!top.help());
    assert_eq!(top.press(Key::Letter('q')), Then::Quit);
    press(&mut top, "/?");
    assert_eq!(top.press(Key::Interrupt), Then::Quit);
}

#[test]
fn who_does_not_answer_is_silent_since_the_last_answer() {
    let mut top = Top::new(View::Services, SECOND, 3 * SECOND);
    assert_eq!(top.silent(4 * SECOND), None);
    assert_eq!(top.silent(5 * SECOND), Some((4 * SECOND, "")));
    top.missed(text("connection refused"));
    assert_eq!(top.silent(2 * SECOND), Some((SECOND, "connection refused")));
    assert!(top.rows().is_empty() && top.look().is_none());
    top.looked(look(), 6 * SECOND);
    assert_eq!(top.silent(9 * SECOND), None);
    top.missed(text("gone"));
    assert_eq!(top.silent(9 * SECOND), Some((3 * SECOND, "gone")));
    // What it last said is still there.
    assert_eq!(top.rows().len(), 2);
    top.looked(look(), 10 * SECOND);
    assert_eq!(top.silent(10 * SECOND), None);
}
