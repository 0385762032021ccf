//! The product as its users have it: the real program on a network of nodes, spoken to by real programs.
//!
//! What is expected here is what the documents promise, not what the code does. Every test has a lab of its own.

#[path = "mesh/allowed.rs"]
mod allowed;
#[path = "mesh/certificates.rs"]
mod certificates;
#[path = "mesh/changes.rs"]
mod changes;
#[path = "mesh/choice.rs"]
mod choice;
#[path = "mesh/client_address.rs"]
mod client_address;
#[path = "mesh/counters.rs"]
mod counters;
#[path = "mesh/devices.rs"]
mod devices;
#[path = "mesh/dns.rs"]
mod dns;
#[path = "mesh/dns_restarts.rs"]
mod dns_restarts;
#[path = "mesh/doctor.rs"]
mod doctor;
#[path = "mesh/events.rs"]
mod events;
#[path = "mesh/explain_live.rs"]
mod explain_live;
#[path = "mesh/external.rs"]
mod external;
#[path = "mesh/flood.rs"]
mod flood;
#[path = "mesh/flows.rs"]
mod flows;
#[path = "mesh/haproxy.rs"]
mod haproxy;
#[path = "mesh/haproxy_config.rs"]
mod haproxy_config;
#[path = "mesh/haproxy_page.rs"]
mod haproxy_page;
#[path = "mesh/haproxy_srv.rs"]
mod haproxy_srv;
#[path = "mesh/health.rs"]
mod health;
#[path = "mesh/isolation.rs"]
mod isolation;
#[path = "mesh/kit.rs"]
mod kit;
#[path = "mesh/large.rs"]
mod large;
#[path = "mesh/leaving.rs"]
mod leaving;
#[path = "mesh/lifecycle.rs"]
mod lifecycle;
#[path = "mesh/liveness.rs"]
mod liveness;
#[path = "mesh/load_balancers.rs"]
mod load_balancers;
#[path = "mesh/localhost.rs"]
mod localhost;
#[path = "mesh/logs.rs"]
mod logs;
#[path = "mesh/managed.rs"]
pub(crate) mod managed;
#[path = "mesh/metrics.rs"]
mod metrics;
#[path = "mesh/monitor.rs"]
mod monitor;
#[path = "mesh/options.rs"]
mod options;
#[path = "mesh/passive.rs"]
mod passive;
#[path = "mesh/ping.rs"]
mod ping;
#[path = "mesh/plane.rs"]
mod plane;
#[path = "mesh/poison.rs"]
mod poison;
#[path = "mesh/privileges.rs"]
mod privileges;
#[path = "mesh/published.rs"]
mod published;
#[path = "mesh/reboot.rs"]
mod reboot;
#[path = "mesh/refusals.rs"]
mod refusals;
#[path = "mesh/removals.rs"]
mod removals;
#[path = "mesh/replicas.rs"]
mod replicas;
#[path = "mesh/restarts.rs"]
mod restarts;
#[path = "mesh/shortages.rs"]
mod shortages;
#[path = "mesh/slow_start.rs"]
mod slow_start;
#[path = "mesh/tasks.rs"]
mod tasks;
#[path = "mesh/template.rs"]
mod template;
#[path = "mesh/top.rs"]
mod top;
#[path = "mesh/traces.rs"]
mod traces;
#[path = "mesh/tunnels.rs"]
mod tunnels;
#[path = "mesh/upgrades.rs"]
mod upgrades;
#[path = "mesh/verify.rs"]
mod verify;
#[path = "mesh/vip.rs"]
mod vip;
#[path = "mesh/web.rs"]
mod web;
