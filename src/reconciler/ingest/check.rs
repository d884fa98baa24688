//! What a sender may say: every name, number and time is checked here before anything believes it.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;

use crate::api::{is_label, is_object_name};
use crate::bounds;
use crate::reconciler::refusal::{Reason, Refusal};

/// What was said longer ago than this says nothing of now.
pub const PAST_MAX: Duration = Duration::from_secs(3600);
/// How far a sender's clock may run ahead of ours.
pub const FUTURE_MAX: Duration = Duration::from_secs(300);
/// Nothing that whispers began longer ago.
const SINCE_MAX: Duration = Duration::from_secs(400 * 86_400);

/// A DNS label (RFC 1123): a namespace, a container.
pub fn label<'a>(field: &'static str, s: &'a str) -> Result<&'a str, Refusal> {
    if is_label(s) {
        return Ok(s);
    }
    Err(bad(field, format!("must be a DNS label (a-z, 0-9, '-', at most 63), is {}", shown(s))))
}

/// A DNS subdomain (RFC 1123): a pod, a node.
pub fn subdomain<'a>(field: &'static str, s: &'a str) -> Result<&'a str, Refusal> {
    if is_object_name(s) {
        return Ok(s);
    }
    Err(bad(field, format!("must be a DNS subdomain (a-z, 0-9, '-', '.', at most 253), is {}", shown(s))))
}

/// A pod's UID: a UUID, or the hash a static pod has on its node.
pub fn uid<'a>(field: &'static str, s: &'a str) -> Result<&'a str, Refusal> {
    let fits = (1..=64).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if fits { Ok(s) } else { Err(bad(field, format!("must be a pod's UID, is {}", shown(s)))) }
}

/// A name for a person to read: no control characters, at most `max` bytes.
pub fn text<'a>(field: &'static str, s: &'a str, max: usize) -> Result<&'a str, Refusal> {
    if s.len() <= max && !s.chars().any(char::is_control) {
        return Ok(s);
    }
    Err(bad(
        field,
        format!("must be text of at most {max} bytes without control characters, is {}", shown(s)),
    ))
}

/// A share of a whole: 0 to 100. What a sum of floats puts a hair above is 100.
pub fn percent(field: &'static str, x: f64) -> Result<f64, Refusal> {
    if (0.0..=100.5).contains(&x) {
        return Ok(x.min(100.0));
    }
    Err(bad(field, format!("must be 0 to 100, is {x}")))
}

/// Seconds, cores, or a percentage that can exceed 100: not negative, not absurd, a number.
pub fn amount(field: &'static str, x: f64) -> Result<f64, Refusal> {
    if (0.0..=bounds::AMOUNT).contains(&x) {
        return Ok(x);
    }
    Err(bad(field, format!("must be 0 to {}, is {x}", bounds::AMOUNT)))
}

/// The length of a window: more than nothing, at most an hour.
pub fn window(field: &'static str, x: f64) -> Result<f64, Refusal> {
    if x > 0.0 && x <= 3600.0 {
        return Ok(x);
    }
    Err(bad(field, format!("must be more than 0 and at most 3600 seconds, is {x}")))
}

/// How many, or how many bytes.
pub fn count(field: &'static str, n: i64) -> Result<i64, Refusal> {
    if (0..=bounds::COUNT).contains(&n) {
        return Ok(n);
    }
    Err(bad(field, format!("must be 0 to {}, is {n}", bounds::COUNT)))
}

/// When it was said: within the last hour, at most five minutes ahead.
pub fn said_at(field: &'static str, at: Timestamp, now: Timestamp) -> Result<Timestamp, Refusal> {
    let age = now.duration_since(at);
    if age <= signed(PAST_MAX) && age >= -signed(FUTURE_MAX) {
        return Ok(at);
    }
    Err(bad(field, format!("must be within the last hour of {now:.0}, is {at:.0}")))
}

/// When it began: before `at`, not years ago. Whole seconds, as an object keeps it.
pub fn since(field: &'static str, since: Timestamp, at: Timestamp) -> Result<Timestamp, Refusal> {
    let length = at.duration_since(since);
    if length >= jiff::SignedDuration::ZERO && length <= signed(SINCE_MAX) {
        return Timestamp::from_second(since.as_second()).map_err(|e| bad(field, e.to_string()));
    }
    Err(bad(field, format!("must be within the 400 days before {at:.0}, is {since:.0}")))
}

/// Nanoseconds since the epoch, as the wire has them.
pub fn unix_ns(field: &'static str, ns: i128) -> Result<Timestamp, Refusal> {
    Timestamp::from_nanosecond(ns).map_err(|_| bad(field, format!("must be ns since 1970, is {ns}")))
}

/// A refusal of this field.
pub fn bad(field: impl Into<Cow<'static, str>>, why: impl Into<String>) -> Refusal {
    Refusal { reason: Reason::BadField, field: Some(field.into()), why: why.into() }
}

fn signed(d: Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(d).unwrap_or(jiff::SignedDuration::MAX)
}

/// What was sent, short enough and plain enough for one line.
pub fn shown(s: &str) -> String {
    let head: String = s.chars().take(40).collect();
    let more = if head.len() < s.len() { "…" } else { "" };
    format!("\"{}{more}\"", head.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "web-0", "0", &"a".repeat(63)] {
            assert!(label("f", good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", "a\n", "../x", &"a".repeat(64)] {
            assert!(label("f", bad).is_err(), "{bad}");
        }
        assert!(subdomain("f", "web-0.example").is_ok());
        for bad in ["", ".", "a..b", "a.", "a/b", "a.-b", &"a".repeat(254)] {
            assert!(subdomain("f", bad).is_err(), "{bad}");
        }
        assert!(uid("f", "0e9fa5a1-8c4b-4e0e-9d5c-5ad1a2f2b0c1").is_ok());
        assert!(uid("f", "").is_err() && uid("f", "zz").is_err());
    }

    #[test]
    fn numbers() {
        assert_eq!(percent("f", 100.2).ok(), Some(100.0));
        for x in [-0.1, 130.0, f64::NAN, f64::INFINITY] {
            assert!(percent("f", x).is_err() && window("f", x).is_ok() == (x == 130.0));
        }
        assert!(amount("f", -1e-9).is_err() && amount("f", f64::NAN).is_err() && amount("f", 1e10).is_err());
        assert!(count("f", -1).is_err() && count("f", i64::MAX).is_err() && count("f", 7).is_ok());
    }

    #[test]
    fn times() {
        let now: Timestamp = "2026-11-21T06:00:00Z".parse().unwrap();
        let at = |s: i64| Timestamp::from_second(now.as_second() + s).unwrap();
        assert!(said_at("f", at(-3600), now).is_ok() && said_at("f", at(300), now).is_ok());
        assert!(said_at("f", at(-3601), now).is_err() && said_at("f", at(301), now).is_err());
        assert!(since("f", at(1), now).is_err() && since("f", Timestamp::UNIX_EPOCH, now).is_err());
        assert_eq!(since("f", now + jiff::SignedDuration::from_millis(700), at(5)).ok(), Some(now));
        assert!(unix_ns("f", i128::MAX).is_err());
    }

    #[test]
    fn what_was_sent_is_shown_in_one_short_line() {
        let e = label("namespace", &"\n\u{1b}[31m".repeat(1000)).unwrap_err().to_string();
        assert!(
            e.len() < 400 && !e.contains('\n') && !e.contains('\u{1b}') && e.starts_with("namespace: "),
            "{e}"
        );
    }
}
