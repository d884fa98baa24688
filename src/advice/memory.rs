//! Memory: near its limit, reading back what it just had to drop, or killed.

use super::command::{self, Change};
use super::{Evidence, HEADROOM, Kind, MAX_FACTOR, NodeFacts, Recommendation, scope, window};
use crate::api::ResourceStep;
use crate::evidence::SignalKind;
use crate::evidence::memory_cause::HIGH;

/// Bytes of a page; a refault is one. (Both architectures we build for; a 64 KiB-page arm64 kernel
/// makes this an underestimate.)
const PAGE: i64 = 4096;
const MEBIBYTE: i64 = 1 << 20;
/// Fewer pages read back in the window (4 MiB) are the ordinary coming and going of a page cache.
const MIN_REFAULTS: i64 = 1024;

/// Rounds bytes up to a number of mebibytes a person would write: steps of 16 below 512, of 64
/// below 4096, else of 256.
fn round_up_mebibytes(bytes: i64) -> i64 {
    let mebibytes = bytes / MEBIBYTE + i64::from(bytes % MEBIBYTE > 0);
    let step = match mebibytes {
        0..512 => 16,
        512..4096 => 64,
        _ => 256,
    };
    (mebibytes + step - 1) / step * step
}

fn mebibytes(bytes: i64) -> String {
    format!("{:.0} MiB", bytes as f64 / MEBIBYTE as f64)
}

/// Of a container that has too little memory.
pub fn short(evidence: &Evidence, node: NodeFacts) -> Recommendation {
    let Some(memory) = &evidence.numbers.memory else {
        return Recommendation::none("no memory numbers came with it.");
    };
    let facts = evidence.pod.container(&evidence.container);
    let Some(limit) = facts.map_or(memory.limit_bytes, |c| c.memory_limit_bytes).filter(|l| *l > 0) else {
        return Recommendation::none(
            "the container has no memory limit: the pressure is the node's or the pod's.",
        );
    };
    let killed = evidence.kind == SignalKind::OomKill || memory.oom_kills.is_some_and(|n| n > 0);
    let held_up = memory.pressure_cause.as_deref() == Some(HIGH);
    let refaults = memory.refaults.unwrap_or(0).max(0);
    if !killed {
        if let Err(why) = window(evidence) {
            return Recommendation::none(why);
        }
        if refaults < MIN_REFAULTS && !held_up {
            return Recommendation::none(format!(
                "{refaults} pages were read back after being dropped: it does not need what it cannot keep, \
                 or that is unknown."
            ));
        }
    }
    let Some(held) = memory.working_set_bytes.or(memory.usage_bytes).or(memory.oom_peak_bytes) else {
        return Recommendation::none("how much it holds is unknown.");
    };

    // What it held, at least the limit where that is what it was killed at, and what it read back.
    let peak = memory.oom_peak_bytes.unwrap_or(0);
    let held = held.max(peak).max(if killed { limit } else { 0 });
    // A page read back many times is one page: no more than as much again.
    let missed = refaults.saturating_mul(PAGE).min(held);
    let wanted = (held.saturating_add(missed) as f64 * (1.0 + HEADROOM)) as i64;
    let least = limit.saturating_add(16 * MEBIBYTE).max((limit as f64 * 1.1) as i64);
    let most = ((limit as f64 * MAX_FACTOR) as i64).max(least);
    let to = round_up_mebibytes(wanted.clamp(least, most)).min(most / MEBIBYTE);

    let mut reason = if killed {
        let kills = memory.oom_kills.unwrap_or(1).max(1);
        format!(
            "The kernel killed {kills} of its tasks at the memory limit of {}{}.",
            mebibytes(limit),
            if peak > 0 { format!(" (the largest held {})", mebibytes(peak)) } else { String::new() }
        )
    } else {
        format!("Under memory pressure at {} of {}.", mebibytes(held), mebibytes(limit))
    };
    if held_up {
        reason.push_str(
            " memory.high held it up, which the kubelet derives from limit and request: it rises with them.",
        );
    }
    if missed > 0 {
        reason.push_str(&format!(" It read back {refaults} pages it had to drop ({}).", mebibytes(missed)));
    }
    reason.push_str(&format!(" A limit of {to}Mi holds that with {:.0} % to spare.", HEADROOM * 100.0));
    if killed {
        reason.push_str(" A leak would grow past any limit: watch whether it does.");
    }

    let mut change = Change::memory_limit(to);
    let mut from = ResourceStep { memory_limit_bytes: Some(limit), ..ResourceStep::default() };
    let mut target = ResourceStep { memory_limit_bytes: Some(to * MEBIBYTE), ..ResourceStep::default() };
    if facts.and_then(|c| c.memory_request_bytes) == Some(limit) {
        change = change.with_memory_request(to);
        from.memory_request_bytes = from.memory_limit_bytes;
        target.memory_request_bytes = target.memory_limit_bytes;
    }
    reason.push_str(&scope(evidence));
    let commands = command::all(evidence, &change, node);
    Recommendation::new(Kind::MemoryLimit, Some(from), Some(target), reason, commands)
}
