use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use proptest::prelude::*;

use super::*;
use crate::kernel::hist::BUCKETS;
use crate::names::metric;
use crate::signals::{SignalKind, Transition};
use crate::sinks::series::culprits::NAMED;
use crate::sinks::series::ledger::Ledger;
use crate::sinks::testdata;

/// The accounts of containers `0..n` after a minute; the first has neighbours.
fn ledger(n: usize) -> Ledger {
    let all: Vec<_> = (0..n).map(|i| testdata::container("shop", &format!("web-{i}"), "app")).collect();
    let mut ledger = Ledger::new(testdata::moment(1000), true);
    ledger.observe(&testdata::reading(&all, 1010));
    ledger.observe(&testdata::reading(&all, 1060));
    ledger
}

fn encode(ledger: &mut Ledger, limit: usize) -> (Vec<Request>, usize) {
    let mut requests = Requests::new(limit);
    ledger.export(|account| requests.metrics(workload_metrics(account, Some("node-1")).expect("metrics")));
    requests.finish()
}

fn decode(request: &Request) -> Vec<ResourceMetrics> {
    ExportMetricsServiceRequest::decode(request.body.clone()).expect("OTLP").resource_metrics
}

fn metrics(all: &[ResourceMetrics]) -> impl Iterator<Item = &Metric> {
    all.iter().flat_map(|r| &r.scope_metrics).flat_map(|s| &s.metrics)
}

fn strings(attributes: &[KeyValue]) -> Vec<(&str, &str)> {
    let text = |kv: &KeyValue| match kv.value.as_ref().and_then(|v| v.value.as_ref()) {
        Some(any_value::Value::StringValue(_)) => true,
        other => panic!("{}: {other:?}", kv.key),
    };
    assert!(attributes.iter().all(text));
    attributes
        .iter()
        .map(|kv| match kv.value.as_ref().and_then(|v| v.value.as_ref()) {
            Some(any_value::Value::StringValue(s)) => (kv.key.as_str(), s.as_str()),
            _ => unreachable!("checked above"),
        })
        .collect()
}

#[test]
fn a_container_is_a_resource_with_every_metric() {
    let mut ledger = ledger(2);
    let whisper = testdata::whisper(
        &testdata::container("shop", "web-0", "app"),
        SignalKind::CpuThrottle,
        Transition::Started,
        1060,
    );
    ledger.whisper(&whisper);
    let (requests, too_large) = encode(&mut ledger, MAX_REQUEST);
    assert_eq!((requests.len(), too_large), (1, 0));
    let all = decode(&requests[0]);
    assert_eq!(all.len(), 2);
    let web = all
        .iter()
        .find(|r| {
            strings(&r.resource.as_ref().expect("a resource").attributes).contains(&("k8s.pod.name", "web-0"))
        })
        .expect("web-0");
    assert_eq!(web.schema_url, names::SCHEMA_URL);
    assert_eq!(
        strings(&web.resource.as_ref().expect("a resource").attributes)[..4],
        [
            ("k8s.namespace.name", "shop"),
            ("k8s.pod.name", "web-0"),
            ("k8s.pod.uid", "uid-of-web-0"),
            ("k8s.container.name", "app"),
        ]
    );
    let found: Vec<_> = metrics(std::slice::from_ref(web)).map(|m| m.name.as_str()).collect();
    // A network is the pod's.
    let of_pods = [
        &metric::NETWORK_PACKETS,
        &metric::NETWORK_DROPPED,
        &metric::NETWORK_TCP_SEGMENTS,
        &metric::NETWORK_TCP_RETRANSMITTED,
        &metric::NETWORK_TCP_EVENTS,
    ]
    .map(|m| m.name);
    let expected: Vec<_> =
        metric::WORKLOAD.map(|m| m.name).into_iter().filter(|m| !of_pods.contains(m)).collect();
    assert_eq!(found, expected);
    let points = |name: &str| -> Vec<NumberDataPoint> {
        metrics(std::slice::from_ref(web))
            .filter(|m| m.name == name)
            .flat_map(|m| match m.data.as_ref().expect("data") {
                Data::Gauge(g) => g.data_points.clone(),
                Data::Sum(s) => {
                    assert_eq!(s.aggregation_temporality(), AggregationTemporality::Cumulative);
                    s.data_points.clone()
                }
                other => panic!("{name}: {other:?}"),
            })
            .collect()
    };
    let run = &points("kernel_gossip.cpu.run.time")[0];
    // 1,060 s of which a fifth on the CPU; the probe's counters began with the agent, the kernel's with the boot.
    assert_eq!(run.value, Some(number_data_point::Value::AsDouble(212.0)));
    assert_eq!(run.time_unix_nano, testdata::moment(1060).unix_ns);
    assert_eq!(run.start_time_unix_nano, testdata::moment(1000).unix_ns);
    assert_eq!(points("kernel_gossip.cpu.usage.time")[0].start_time_unix_nano, testdata::moment(0).unix_ns);
    assert_eq!(points("kernel_gossip.cpu.limit")[0].value, Some(number_data_point::Value::AsDouble(0.5)));
    assert_eq!(points("kernel_gossip.cpu.periods")[0].value, Some(number_data_point::Value::AsInt(10_600)));
    let wait: Vec<_> = points("kernel_gossip.cpu.wait.time");
    let causes: Vec<_> = wait.iter().flat_map(|p| strings(&p.attributes)).map(|(_, cause)| cause).collect();
    assert_eq!(causes, ["throttle", "neighbour", "own", "unattributed"]);
    let active = &points("kernel_gossip.whisper.active")[0];
    assert_eq!(active.value, Some(number_data_point::Value::AsInt(1)));
    let neighbour = &points("kernel_gossip.cpu.neighbour.time")[0];
    assert_eq!(strings(&neighbour.attributes)[0], ("kernel_gossip.neighbour.name", "shop/web-1/app"));
}

/// CRI-O has a monitor for each container of a pod, all with the pod's names.
#[test]
fn no_two_workloads_are_one_resource() {
    let web = testdata::container("shop", "web", "app");
    let monitor = |n: u32| {
        let mut who = Workload::clone(&web);
        who.kind = crate::attribution::WorkloadKind::Cgroup;
        who.cgroup = format!("/kubepods.slice/pod/crio-conmon-{n}.scope");
        (who.container, who.container_id) = (None, None);
        std::sync::Arc::new(who)
    };
    let all = [web.clone(), monitor(1), monitor(2)];
    let mut ledger = Ledger::new(testdata::moment(0), true);
    ledger.observe(&testdata::reading(&all, 10));
    let (requests, _) = encode(&mut ledger, MAX_REQUEST);
    let resources: std::collections::HashSet<_> = requests
        .iter()
        .flat_map(decode)
        .map(|r| format!("{:?}", strings(&r.resource.expect("a resource").attributes)))
        .collect();
    assert_eq!(resources.len(), all.len(), "{resources:#?}");
}

/// The most that can be said of one container: all numbers known, more neighbours than are named, every
/// signal once active at either severity.
#[test]
fn a_container_has_39_series_and_two_for_each_signal() {
    let mut all = vec![testdata::container("shop", "web", "app")];
    all.extend((0..3 * NAMED).map(|i| testdata::container("batch", &format!("noisy-{i}"), "burner")));
    let mut ledger = Ledger::new(testdata::moment(0), true);
    ledger.observe(&testdata::reading(&all, 10));
    for signal in SignalKind::said() {
        for severity in [Severity::Warning, Severity::Critical] {
            let whisper = testdata::whisper(&all[0], signal, Transition::Started, 10);
            ledger.whisper(&Whisper { severity, ..whisper });
        }
    }
    let (requests, _) = encode(&mut ledger, MAX_REQUEST);
    let all: Vec<_> = requests.iter().flat_map(decode).collect();
    let series = |r: &ResourceMetrics| metrics(std::slice::from_ref(r)).map(data_points).sum::<usize>();
    let most = all.iter().map(series).max().expect("resources");
    assert_eq!(most, 39 + 2 * SignalKind::said().count(), "of the victim, which has everything");
}

#[test]
fn a_pods_own_cgroup_says_nothing_its_containers_say() {
    let mut pod = Workload::clone(&testdata::container("shop", "web", "app"));
    (pod.kind, pod.container, pod.container_id) = (crate::attribution::WorkloadKind::Pod, None, None);
    let pod = std::sync::Arc::new(pod);
    let mut ledger = Ledger::new(testdata::moment(0), true);
    let mut reading = testdata::reading(std::slice::from_ref(&pod), 10);
    reading.samples[0].cpu = None;
    ledger.observe(&reading);
    let (requests, _) = encode(&mut ledger, MAX_REQUEST);
    let all = decode(&requests[0]);
    let found: Vec<_> = metrics(&all).map(|m| m.name.as_str()).collect();
    assert!(found.contains(&"kernel_gossip.cpu.throttled.periods"));
    assert!(!found.contains(&"kernel_gossip.cpu.usage.time"), "{found:?}");
}

#[test]
fn what_is_unknown_is_absent() {
    let mut ledger = Ledger::new(testdata::moment(0), true);
    let mut reading = testdata::reading(&[testdata::unit("x.service")], 10);
    (reading.samples[0].cpu, reading.samples[0].stat, reading.samples[0].quota_cores) =
        (None, Default::default(), None);
    ledger.observe(&reading);
    ledger.export(|account| assert!(workload_metrics(account, None).is_none()));
}

#[test]
fn a_whisper_is_an_event() {
    let who = testdata::container("shop", "web", "app");
    let whisper = testdata::whisper(&who, SignalKind::CpuThrottle, Transition::Started, 100);
    let mut requests = Requests::new(MAX_REQUEST);
    requests.event(whisper_event(&whisper, "it was throttled".into(), Some("node-1"), 7));
    let (requests, _) = requests.finish();
    let decoded = ExportLogsServiceRequest::decode(requests[0].body.clone()).expect("OTLP");
    let resource = decoded.resource_logs[0].resource.as_ref().expect("a resource");
    assert!(strings(&resource.attributes).contains(&("k8s.node.name", "node-1")));
    let record = &decoded.resource_logs[0].scope_logs[0].log_records[0];
    assert_eq!(record.event_name, "kernel_gossip.whisper");
    assert_eq!(record.time_unix_nano, whisper.at.unix_ns);
    assert_eq!(record.observed_time_unix_nano, 7);
    assert_eq!((record.severity_number(), &*record.severity_text), (SeverityNumber::Error, "ERROR"));
    assert_eq!(record.body, Some(super::any(AttrValue::from("it was throttled"))));
    let mut expected: Vec<_> = whisper_attributes(&whisper).map(|(k, v)| attribute(k, v)).collect();
    expected.push(attribute("event.name", "kernel_gossip.whisper".into()));
    assert_eq!(record.attributes, expected);
}

#[test]
fn severity_follows_the_whisper() {
    let who = testdata::container("shop", "web", "app");
    for (transition, severity, expected) in [
        (Transition::Started, Severity::Warning, SeverityNumber::Warn),
        (Transition::Repeated, Severity::Critical, SeverityNumber::Error),
        (Transition::Resolved, Severity::Critical, SeverityNumber::Info),
    ] {
        let whisper = testdata::whisper(&who, SignalKind::CpuContention, transition, 100);
        let event = whisper_event(&Whisper { severity, ..whisper }, String::new(), None, 0);
        assert_eq!(event.scope_logs[0].log_records[0].severity_number(), expected);
    }
}

#[test]
fn what_fits_no_request_is_counted() {
    let mut requests = Requests::new(64);
    let who = testdata::container("shop", "web", "app");
    let whisper = testdata::whisper(&who, SignalKind::CpuThrottle, Transition::Started, 100);
    requests.event(whisper_event(&whisper, "text".into(), None, 0));
    let mut one = ledger(1);
    one.export(|account| requests.metrics(workload_metrics(account, None).expect("metrics")));
    let (requests, too_large) = requests.finish();
    assert!(requests.is_empty());
    assert!(too_large > 20, "{too_large}");
}

/// What a request says, as one text a point, in no order.
fn said(requests: &[Request]) -> Vec<String> {
    let mut all = Vec::new();
    for resource in requests.iter().flat_map(decode) {
        for metric in metrics(std::slice::from_ref(&resource)) {
            let whose = format!("{:?} {} {}", resource.resource, metric.name, metric.unit);
            match metric.data.as_ref().expect("data") {
                Data::Gauge(d) => all.extend(d.data_points.iter().map(|p| format!("{whose} {p:?}"))),
                Data::Sum(d) => all.extend(d.data_points.iter().map(|p| format!("{whose} {p:?}"))),
                Data::ExponentialHistogram(d) => {
                    all.extend(d.data_points.iter().map(|p| format!("{whose} {p:?}")));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    all.sort();
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_request_is_over_the_limit_and_nothing_is_lost(n in 1usize..40, limit in 900usize..30_000) {
        let (whole, _) = encode(&mut ledger(n), usize::MAX);
        let (parts, too_large) = encode(&mut ledger(n), limit);
        prop_assert_eq!(too_large, 0);
        for request in &parts {
            prop_assert!(request.body.len() <= limit, "{} bytes", request.body.len());
            let points: usize = metrics(&decode(request)).map(data_points).sum();
            prop_assert_eq!(points, request.items);
        }
        prop_assert_eq!(said(&parts), said(&whole));
    }

    #[test]
    fn every_duration_is_within_its_bucket(ns in prop_oneof![0u64..2_000, 0u64..10_000_000_000, 0u64..256_000_000_000]) {
        let mut histogram = Log2Histogram::default();
        histogram.record(ns);
        let point = exponential(&histogram, ns, Vec::new(), 0, 0);
        let seconds = ns as f64 / 1e9;
        prop_assert_eq!((point.count, point.scale), (1, 0));
        if point.zero_count == 1 {
            prop_assert!(seconds <= point.zero_threshold);
        } else {
            let buckets = point.positive.expect("buckets");
            prop_assert_eq!(&buckets.bucket_counts, &[1]);
            let (lower, upper) = (f64::powi(2.0, buckets.offset), f64::powi(2.0, buckets.offset + 1));
            prop_assert!(lower < seconds && seconds <= upper, "{} in ({}, {}]", seconds, lower, upper);
        }
    }

    #[test]
    fn every_bucket_keeps_its_count(counts in prop::array::uniform32(0u64..5)) {
        let histogram = Log2Histogram { counts };
        let point = exponential(&histogram, 0, Vec::new(), 0, 0);
        prop_assert_eq!(point.count, counts.iter().sum::<u64>());
        prop_assert_eq!(point.zero_count, counts[0]);
        let buckets = point.positive.expect("buckets");
        for (i, count) in counts.iter().enumerate().skip(1) {
            let index = i as i32 + MIN_EXPONENT - buckets.offset;
            let said = usize::try_from(index).ok().and_then(|i| buckets.bucket_counts.get(i));
            prop_assert_eq!(said.copied().unwrap_or(0), *count, "bucket {}", i);
        }
        prop_assert!(buckets.bucket_counts.len() < BUCKETS);
    }
}
