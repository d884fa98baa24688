use std::io::{self, Write};

use bytes::Bytes;
use tonic_types::{ErrorDetails, StatusExt};

use super::*;

/// What is logged, for one thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines logged meanwhile.
fn logged(what: impl FnOnce()) -> Vec<String> {
    let log = Log::default();
    let to = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .with_writer(move || to.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, what);
    let bytes = lock(&log.0).clone();
    String::from_utf8(bytes).expect("text").lines().map(|l| l.trim().to_owned()).collect()
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
            "ERROR OTLP receiver http://c:4317/: refuses metrics (Unimplemented: unknown service); they are \
             dropped and counted",
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
