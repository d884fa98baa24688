//! The agent, its sinks and the reconciler's doors on this machine, with the real collector and Prometheus.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bed;
mod host {
    mod agent;
    mod check;
    mod compatibility;
    mod dashboards;
    mod drops;
    mod families;
    mod hostile;
    mod ingest;
    mod oom;
    mod openshift;
    mod otlp_check;
    mod otlp_collector;
    mod otlp_delivery;
    mod otlp_gateway;
    mod otlp_outage;
    mod prometheus_server;
    mod retransmits;
    mod semconv;
    mod settings;
    mod suite;
    mod top;
    mod who;
}
