use bytes::Bytes;
use tonic_types::{ErrorDetails, StatusExt};

use super::*;
use crate::testlog;

/// The lines logged meanwhile, without where they come from.
fn logged(what: impl FnOnce()) -> Vec<String> {
    testlog::keep();
    let before = testlog::lines_of_this_thread().len();
    what();
    let lines = testlog::lines_of_this_thread().split_off(before);
    lines.iter().map(|line| line.replacen("kernel_gossip::sinks::otlp::sender: ", "", 1)).collect()
}

fn health() -> Health {
    let queue = Arc::new(Queue::new(100));
    for lane in [Lane::Metrics, Lane::Events] {
        queue.push(lane, Request { body: Bytes::from_static(&[0; 10]), items: 4 });
    }
    Health::new("http://c:4317/".into(), queue)
}

#[test]
fn an_outage_is_told_once_and_its_end_once() {
    let lines = logged(|| {
        let health = health();
        let gone = Status::unavailable("tcp connect error");
        for _ in 0..3 {
            [Lane::Metrics, Lane::Events].iter().for_each(|lane| health.unreachable(*lane, &gone));
        }
        health.queue.push(Lane::Metrics, Request { body: Bytes::from_static(&[0; 95]), items: 3 });
        [Lane::Metrics, Lane::Events].iter().for_each(|lane| health.accepted(*lane, &Partial::default()));
        health.accepted(Lane::Events, &Partial::default());
    });
    assert_eq!(
        lines,
        [
            "WARN OTLP receiver http://c:4317/: cannot be reached (Unavailable: tcp connect error); what is to be \
             sent is kept, as far as there is room, and sent again",
            "INFO OTLP receiver http://c:4317/: reachable again after 0 s; 4 events and 0 data points were kept, 7 \
             were dropped",
        ]
    );
}

#[test]
fn a_receiver_that_takes_only_one_kind_is_told_of_once() {
    let lines = logged(|| {
        let health = health();
        let never = Status::unimplemented("unknown service");
        let partial = Partial { rejected: 2, message: "too old".into() };
        for _ in 0..3 {
            health.refused(Lane::Metrics, &never);
            health.accepted(Lane::Events, &partial);
        }
    });
    assert_eq!(
        lines,
        [
            "ERROR OTLP receiver http://c:4317/: refuses metrics (Unimplemented: unknown service; it has no \
             service for this kind of data: give it a pipeline for it, or send it elsewhere); they are dropped and counted",
            "WARN OTLP receiver http://c:4317/: rejects 2 events: too old",
        ]
    );
}

#[test]
fn only_the_codes_of_the_specification_are_sent_again() {
    let again = [
        Code::Cancelled,
        Code::DeadlineExceeded,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unavailable,
        Code::DataLoss,
    ];
    for code in (0..=16).map(Code::from) {
        assert_eq!(worth_another(&Status::new(code, "x")), again.contains(&code), "{code:?}");
    }
}

#[test]
fn an_exhausted_receiver_is_asked_again_only_when_it_says_so() {
    let wait = Some(Duration::from_secs(7));
    let details = ErrorDetails::with_retry_info(wait);
    let status = Status::with_error_details(Code::ResourceExhausted, "later", details);
    assert!(worth_another(&status));
    assert_eq!(retry_after(&status), wait);
}

/// The hosts' answers, as the libraries hand them on (docs of reports: opentelemetry-java#4048, opentelemetry.io#2861).
#[test]
fn a_receiver_that_speaks_something_else_is_told_as_that() {
    let no_grpc =
        Status::unavailable("h2 protocol error: http2 error: connection error: frame with invalid size");
    assert!(describe(&no_grpc).contains("HTTP port (4318"), "{}", describe(&no_grpc));
    let no_tls = Status::unavailable("received corrupt message of type InvalidContentType");
    assert!(describe(&no_tls).contains("--otlp-insecure"), "{}", describe(&no_tls));
    assert!(!describe(&Status::unavailable("gone")).contains(';'));
}
