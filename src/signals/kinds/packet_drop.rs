//! `packet_drop`: the kernel dropped a share of the pod's packets, by the kernel's own reason.

use super::{Kind, Seen};
use crate::advice::{self, Evidence, NodeFacts, Recommendation};
use crate::evidence::{NetworkNumbers, SignalEvidence};
use crate::kernel::{Dropped, PacketCounters};
use crate::signals::hysteresis::Judgement;
use crate::signals::rules::{CLEAR, CRITICAL, ENABLED, HOLD, Key, REPEAT, Rule, Section, WARNING, WINDOW};
use crate::signals::whisper::Whisper;
use crate::signals::window::Growth;

#[derive(Debug)]
pub struct PacketDrop;

const COMMON: [Key; 7] = [ENABLED, WINDOW, WARNING.or(1.0), CRITICAL.or(5.0), CLEAR.or(0.5), HOLD, REPEAT];
const MIN_DROPPED: Key = Key::whole(
    "min_dropped",
    20.0,
    (1.0, 1e6),
    "Fewer packets dropped in the window are not said. 1 to 1000000.",
);

static SECTION: Section = Section {
    help: "The kernel dropped its packets. Percentages: dropped packets, of all that it sent and received in the window.",
    common: &COMMON,
    own: &[MIN_DROPPED],
};

fn dropped(packets: &PacketCounters) -> u64 {
    packets.dropped_out + packets.dropped_in
}

/// Packets dropped of all, percent; what was dropped is part of what there was.
fn share(packets: &PacketCounters) -> f64 {
    let dropped = dropped(packets);
    if dropped == 0 { 0.0 } else { dropped as f64 / packets.packets.max(dropped) as f64 * 100.0 }
}

impl Kind for PacketDrop {
    fn brief(&self) -> &'static str {
        "The kernel dropped a share of its packets."
    }

    fn section(&self) -> Option<&'static Section> {
        Some(&SECTION)
    }

    /// `None` of what has no network namespace of its own.
    fn judge(&self, rule: &Rule, growth: &Growth) -> Option<Judgement> {
        let packets = growth.packets?;
        let enough = dropped(&packets) as f64 >= rule.get(&MIN_DROPPED);
        Some(Judgement::of(rule, share(&packets), enough, growth.complete))
    }

    fn fill(&self, whisper: &mut Whisper, seen: &Seen<'_>) {
        let Some(packets) = seen.growth.packets else { return };
        let reasons = seen.sample.network.map_or(Vec::new(), |n| seen.window.drops(seen.growth, &n.drops));
        let one = |d: &Dropped| {
            format!("{} {} {}", d.packets, if d.out { "sent" } else { "received" }, d.reason.name())
        };
        let all: Vec<String> = reasons.iter().take(5).map(one).collect();
        whisper.evidence.network = Some(NetworkNumbers {
            packets: i64::try_from(packets.packets).ok(),
            dropped_packets: i64::try_from(dropped(&packets)).ok(),
            drop_percent: Some(share(&packets)),
            dropped_sent_packets: i64::try_from(packets.dropped_out).ok(),
            dropped_received_packets: i64::try_from(packets.dropped_in).ok(),
            interface_dropped_packets: packets.interface_dropped.and_then(|n| i64::try_from(n).ok()),
            reason: reasons.first().map(|d| d.reason.name().to_owned()),
            reasons: (!all.is_empty()).then(|| all.join(", ")),
            ..NetworkNumbers::default()
        });
    }

    fn size(&self, numbers: &SignalEvidence) -> f64 {
        numbers.network().drop_percent.unwrap_or_default()
    }

    /// `5.0 % of its packets dropped: NETFILTER_DROP`
    fn headline(&self, numbers: &SignalEvidence) -> String {
        let network = numbers.network();
        let reason = network.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        match network.drop_percent {
            Some(percent) => format!("{percent:.1} % of its packets dropped{reason}"),
            None => format!("packets dropped{reason}"),
        }
    }

    /// ": 100 of 2004, 100 sent NETFILTER_DROP"
    fn details(&self, whisper: &Whisper) -> String {
        let network = whisper.evidence.network();
        let Some((dropped, all)) = network.dropped_packets.zip(network.packets) else { return String::new() };
        let reasons = network.reasons.as_ref().map(|reasons| format!(": {reasons}")).unwrap_or_default();
        format!(", {dropped} of {all}{reasons}")
    }

    fn sentence(&self, who: &str, numbers: &SignalEvidence) -> Option<String> {
        let network = numbers.network();
        let (percent, reason) =
            (network.drop_percent?, network.reason.as_deref().unwrap_or("no reason known"));
        Some(match network.interface_dropped_packets {
            Some(n) => {
                format!(
                    "{who}'s interfaces count {n} dropped packets, and the kernel dropped {percent:.1} % of its packets ({reason}) in a window"
                )
            }
            None => format!("{who} lost {percent:.1} % of its packets in the kernel ({reason}) in a window"),
        })
    }

    fn of_pods(&self) -> bool {
        true
    }

    fn advise(&self, evidence: &Evidence, _node: NodeFacts) -> Recommendation {
        advice::network::dropped(&evidence.numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Severity;

    fn growth(packets: u64, dropped_out: u64) -> Growth {
        let packets = Some(PacketCounters { packets, dropped_out, ..PacketCounters::default() });
        Growth { seconds: 10.0, basis_seconds: 10.0, complete: true, packets, ..Growth::default() }
    }

    fn judged(packets: u64, dropped: u64) -> Judgement {
        PacketDrop.judge(&Rule::of(PacketDrop.section()), &growth(packets, dropped)).expect("measured")
    }

    #[test]
    fn a_hundredth_is_a_warning_and_a_twentieth_is_critical() {
        assert_eq!(judged(10_000, 99).level, None);
        assert_eq!(judged(10_000, 100).level, Some(Severity::Warning));
        assert_eq!(judged(10_000, 500).level, Some(Severity::Critical));
        assert!(judged(10_000, 50).clear && !judged(10_000, 51).clear);
    }

    #[test]
    fn a_few_packets_are_no_signal_whatever_their_share() {
        assert_eq!(judged(19, 19).level, None);
        assert_eq!(judged(20, 20).level, Some(Severity::Critical));
        assert!(judged(0, 0).clear, "an idle pod");
    }

    #[test]
    fn without_a_namespace_of_its_own_there_is_no_share() {
        let none = Growth { packets: None, ..growth(1, 1) };
        assert_eq!(PacketDrop.judge(&Rule::of(PacketDrop.section()), &none), None);
    }
}
