//! `tcp_retransmit`: it had to send a share of its TCP segments again, and waited for answers that did not come.

use super::{Kind, Seen, phrases};
use crate::advice::{self, Evidence, NodeFacts, Recommendation};
use crate::evidence::{NetworkNumbers, SignalEvidence};
use crate::kernel::TcpCounters;
use crate::signals::hysteresis::Judgement;
use crate::signals::rules::{CLEAR, CRITICAL, ENABLED, HOLD, Key, REPEAT, Rule, Section, WARNING, WINDOW};
use crate::signals::whisper::Whisper;
use crate::signals::window::Growth;

#[derive(Debug)]
pub struct TcpRetransmit;

const COMMON: [Key; 7] = [ENABLED, WINDOW, WARNING.or(1.0), CRITICAL.or(5.0), CLEAR.or(0.5), HOLD, REPEAT];
const MIN_TIMEOUTS: Key = Key::whole(
    "min_timeouts",
    3.0,
    (1.0, 1e6),
    "Fewer timeouts and losses that a probe repaired, or SYNs sent again, in the window are not said, whatever the share. 1 to \
     1000000.",
);

static SECTION: Section = Section {
    help: "It sent TCP segments again. Percentages: segments sent again, of all that it sent in the window.",
    common: &COMMON,
    own: &[MIN_TIMEOUTS],
};

/// Segments sent again of all, percent. The kernel counts the two apart.
fn share(tcp: &TcpCounters) -> f64 {
    let all = tcp.sent + tcp.retransmitted;
    if all == 0 { 0.0 } else { tcp.retransmitted as f64 / all as f64 * 100.0 }
}

impl Kind for TcpRetransmit {
    fn brief(&self) -> &'static str {
        "It had to send TCP segments again."
    }

    fn section(&self) -> Option<&'static Section> {
        Some(&SECTION)
    }

    /// `None` of what has no network namespace of its own. Segments are sent again without a loss, too, where they come out of
    /// order or late: 1,516 in a clean transfer of 0.8 GB. A wait in vain is what hurts, and what reordering does not make: a timeout (200 ms
    /// and more), or the time after which a probe repairs the loss of what was sent last (two round trips, or 200 ms more where it was all on the way;
    /// tcp_schedule_loss_probe()), as far as nothing says that it had arrived. (A SYN's is among the timeouts; that of an answer to one is not.)
    fn judge(&self, rule: &Rule, growth: &Growth) -> Option<Judgement> {
        let tcp = growth.packets?.tcp;
        let waits = tcp.timeouts.max(tcp.syn) + tcp.tail_losses;
        let enough = waits as f64 >= rule.get(&MIN_TIMEOUTS);
        Some(Judgement::of(rule, share(&tcp), enough, growth.complete))
    }

    fn fill(&self, whisper: &mut Whisper, seen: &Seen<'_>) {
        let Some(packets) = seen.growth.packets else { return };
        let tcp = packets.tcp;
        let number = |count: u64| i64::try_from(count).ok();
        whisper.evidence.network = Some(NetworkNumbers {
            segments: number(tcp.sent + tcp.retransmitted),
            retransmitted_segments: number(tcp.retransmitted),
            retransmit_percent: Some(share(&tcp)),
            timeouts: number(tcp.timeouts),
            fast_retransmits: number(tcp.fast),
            tail_losses: number(tcp.tail_losses),
            lost_retransmits: number(tcp.lost_again),
            syn_retransmits: number(tcp.syn),
            resets_sent: number(tcp.resets_sent),
            reset_connections: number(tcp.reset),
            failed_connections: number(tcp.failed),
            ..NetworkNumbers::default()
        });
    }

    fn size(&self, numbers: &SignalEvidence) -> f64 {
        numbers.network().retransmit_percent.unwrap_or_default()
    }

    /// `4.8 % of its segments sent again, 14 timeouts, 3 tail losses`
    fn headline(&self, numbers: &SignalEvidence) -> String {
        let network = numbers.network();
        let waits =
            [(network.timeouts, "timeout"), (network.tail_losses, "tail loss")].map(|(count, what)| {
                count.filter(|n| *n > 0).map(|n| format!(", {}", counted(n, what))).unwrap_or_default()
            });
        let share =
            network.retransmit_percent.map(|percent| format!("{percent:.1} % of its ")).unwrap_or_default();
        format!("{share}segments sent again{}", waits.concat())
    }

    /// ", 230 of 4802: 180 fast, 12 lost again, 3 of SYNs; 2 connections reset, 1 failed"
    fn details(&self, whisper: &Whisper) -> String {
        let n = whisper.evidence.network();
        let Some((again, all)) = n.retransmitted_segments.zip(n.segments) else { return String::new() };
        let of = |number: Option<i64>, words: &str| number.filter(|n| *n > 0).map(|n| format!("{n} {words}"));
        let how = [
            of(n.fast_retransmits, "fast"),
            of(n.lost_retransmits, "lost again"),
            of(n.syn_retransmits, "of SYNs"),
        ];
        let end = [
            n.reset_connections.filter(|n| *n > 0).map(|n| format!("{} reset", counted(n, "connection"))),
            n.failed_connections.filter(|n| *n > 0).map(|n| format!("{} failed", counted(n, "connection"))),
        ];
        format!(", {again} of {all}{}{}", phrases(": ", how), phrases("; ", end))
    }

    fn sentence(&self, who: &str, numbers: &SignalEvidence) -> Option<String> {
        let network = numbers.network();
        let (percent, timeouts) = (network.retransmit_percent?, network.timeouts?);
        let waits = timeouts.saturating_add(network.tail_losses.unwrap_or_default());
        Some(format!(
            "{who} waited {} for an acknowledgement in vain, and sent again {percent:.1} % of its TCP segments in a window",
            counted(waits, "time")
        ))
    }

    fn of_pods(&self) -> bool {
        true
    }

    fn advise(&self, evidence: &Evidence, _node: NodeFacts) -> Recommendation {
        advice::network::retransmitted(&evidence.numbers)
    }
}

/// `1 timeout`, `14 timeouts`, `2 tail losses`
fn counted(n: i64, what: &str) -> String {
    let ending = match n {
        1 => "",
        _ if what.ends_with('s') => "es",
        _ => "s",
    };
    format!("{n} {what}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Severity;
    use crate::kernel::PacketCounters;

    fn judged(tcp: TcpCounters) -> Judgement {
        let packets = Some(PacketCounters { tcp, ..PacketCounters::default() });
        let growth =
            Growth { seconds: 10.0, basis_seconds: 10.0, complete: true, packets, ..Growth::default() };
        TcpRetransmit.judge(&Rule::of(TcpRetransmit.section()), &growth).expect("measured")
    }

    fn segments(sent: u64, retransmitted: u64, timeouts: u64) -> TcpCounters {
        TcpCounters { sent, retransmitted, timeouts, ..TcpCounters::default() }
    }

    #[test]
    fn a_hundredth_is_a_warning_and_a_twentieth_is_critical() {
        assert_eq!(judged(segments(9_901, 99, 5)).level, None);
        assert_eq!(judged(segments(9_900, 100, 5)).level, Some(Severity::Warning));
        assert_eq!(judged(segments(9_500, 500, 5)).level, Some(Severity::Critical));
        assert!(judged(segments(9_950, 50, 5)).clear && !judged(segments(9_949, 51, 5)).clear);
    }

    #[test]
    fn segments_sent_again_without_a_wait_are_no_loss() {
        assert_eq!(judged(segments(10_000, 1_516, 2)).level, None);
        assert_eq!(judged(segments(10_000, 1_516, 3)).level, Some(Severity::Critical));
        // Where the answer is near, a probe repairs the loss of what was sent last before a timeout.
        let probed = TcpCounters { tail_losses: 300, ..segments(6_170, 324, 0) };
        assert_eq!(judged(probed).level, Some(Severity::Warning));
        // Of the answers to SYNs no timeout is counted.
        let answers = TcpCounters { syn: 3, ..segments(4, 3, 0) };
        assert_eq!(judged(answers).level, Some(Severity::Critical));
        assert!(judged(segments(0, 0, 0)).clear, "an idle pod");
    }

    #[test]
    fn it_reads_as_a_sentence_and_a_headline() {
        let network = NetworkNumbers {
            segments: Some(4_802),
            retransmitted_segments: Some(230),
            retransmit_percent: Some(4.8),
            timeouts: Some(1),
            ..NetworkNumbers::default()
        };
        let numbers = SignalEvidence { network: Some(network), ..SignalEvidence::default() };
        assert_eq!(TcpRetransmit.headline(&numbers), "4.8 % of its segments sent again, 1 timeout");
        let mut probed = numbers.clone();
        probed.network.as_mut().unwrap().tail_losses = Some(2);
        assert_eq!(
            TcpRetransmit.headline(&probed),
            "4.8 % of its segments sent again, 1 timeout, 2 tail losses"
        );
        assert!(TcpRetransmit.sentence("The pod", &probed).unwrap().contains("waited 3 times"));
        assert_eq!(
            TcpRetransmit.sentence("The pod", &numbers).as_deref(),
            Some(
                "The pod waited 1 time for an acknowledgement in vain, and sent again 4.8 % of its TCP segments in \
                 a window"
            )
        );
    }
}
