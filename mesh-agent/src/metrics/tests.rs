use std::collections::BTreeMap;

use mesh_core::certificate::LIFE;

use super::*;
use crate::api::types::{FlowTable, ServiceCounters};
use crate::plane::Applied;
use crate::status::{PlaneStatus, StoreHealth};

fn scrape(backends: usize) -> String {
    let backend = |number: usize| BackendCounters {
        task: format!("web.{number}"),
        node: "n1".to_owned(),
        network: "app".to_owned(),
        address: "10.0.0.2".to_owned(),
        state: "active".to_owned(),
        flows: 7,
        packets: 70,
        bytes: 700,
    };
    let web = ServiceCounters {
        name: "web".to_owned(),
        flows: 7,
        packets: 70,
        bytes: 700,
        backends: (1..=backends).map(backend).collect(),
    };
    let counters = AllCounters {
        events: BTreeMap::from([("no_backend".to_owned(), 3)]),
        tables: BTreeMap::from([("tcp".to_owned(), FlowTable { live: 5, established: 4, slots: 1024 })]),
        services: vec![web],
    };
    let last = Applied {
        changed: 1,
        errors: BTreeMap::from([("x".to_owned(), "broken".to_owned())]),
        ..Applied::default()
    };
    let plane = PlaneStatus { last, rounds: 2, changed: 9, micros: 500, total_micros: 1_500_000 };
    let status = Status {
        store: StoreHealth { connected: true, ..StoreHealth::default() },
        planes: BTreeMap::from([("overlay", plane)]),
        ..Status::default()
    };
    let node = NodeId::new("n1");
    let dns = DnsCounters { addresses: 12, forwarded: 5, cached: 4, ..DnsCounters::default() };
    let store = vec![("txn", Taken { requests: 8, failed: 1, micros: 2_500_000 })];
    let (status, world) = (Arc::new(status), Arc::default());
    let certificate = Some(Validity::begin(1_800_000_000_500, LIFE));
    Scrape { counters: Some(counters), backends, status, world, node, dns, store, certificate }
        .text()
        .unwrap()
}

#[test]
fn metrics_have_names_types_and_labels() {
    let text = scrape(1);
    for line in [
        "# TYPE mesh_events_total counter",
        "mesh_events_total{event=\"no_backend\"} 3.0",
        "mesh_backend_flows_total{service=\"web\",task=\"web.1\",node=\"n1\",network=\"app\"} 7.0",
        "mesh_flow_slots{protocol=\"tcp\"} 1024.0",
        "mesh_round_seconds_total{plane=\"overlay\"} 1.5",
        "mesh_failing_objects{plane=\"overlay\"} 1.0",
        "mesh_problems 1.0",
        "mesh_dns_answers_total{answer=\"addresses\"} 12.0",
        "mesh_dns_cached_answers_total 4.0",
        "mesh_store_requests_total{request=\"txn\"} 8.0",
        "mesh_store_failed_requests_total{request=\"txn\"} 1.0",
        "mesh_store_request_seconds_total{request=\"txn\"} 2.5",
        "mesh_store_connected 1.0",
        "# TYPE mesh_certificate_expiration_timestamp_seconds gauge",
        "mesh_certificate_expiration_timestamp_seconds 1802592000.5",
        "mesh_certificate_issued_timestamp_seconds 1800000000.5",
        "# TYPE process_cpu_seconds_total counter",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn of_too_many_backends_only_the_sums_are_told() {
    let text = scrape(BACKENDS + 1);
    assert!(
        !text.contains("mesh_backend_flows_total{")
            && text.contains("mesh_service_backends_flows{service=\"web\"} 7.0")
    );
    assert!(text.contains(&format!("mesh_backends {}.0", BACKENDS + 1)));
}

/// Every family is explained, and nothing else is.
#[test]
fn the_document_has_every_family() {
    let text = scrape(1);
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let document = include_str!("../../../docs/metrics.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next());
    let (families, rows): (std::collections::BTreeSet<_>, std::collections::BTreeSet<_>) =
        (families.collect(), rows.collect());
    assert_eq!(families, rows);
}
