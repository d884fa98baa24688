//! What belongs to a birth, and what was done after it.

use super::retries::{Node, SOON};
use super::*;
use crate::birth::watch::Tally;
use crate::kernel::recorder::{Counters, Ended};

/// A recorder of programs that do nothing but ask for the time: this often until now.
struct Busy(u64);

impl Busy {
    fn counters(&self) -> Counters {
        Counters { syscalls: [(syscalls::Sysno::clock_gettime as u32, self.0)].into(), ..Counters::default() }
    }
}

impl Tally for Busy {
    fn end(&mut self, ids: &[SegmentId]) -> Vec<Ended> {
        let of = |id: &SegmentId| Ended {
            counters: self.counters(),
            ..ended(id.0, 1, u64::MAX / 2, End::Stopped)
        };
        ids.iter().map(of).collect()
    }

    fn so_far(&mut self, ids: &[SegmentId]) -> Vec<(SegmentId, Counters)> {
        ids.iter().map(|id| (*id, self.counters())).collect()
    }
}

#[test]
fn what_a_container_does_after_ready_is_no_part_of_its_birth() {
    // It does not listen, and goes on.
    let mut all = records(POD);
    let own = all.iter().rev().find_map(|r| match r {
        Record::Began(s) if s.args == ["/pod", "web"] => Some(s.id),
        _ => None,
    });
    all.retain(|r| {
        !matches!(r, Record::Listen(_)) && !matches!(r, Record::Ended(e) if Some(e.segment) == own)
    });
    let ended = |r: &Record| match r {
        Record::Ended(e) => e.counters.total_syscalls(),
        _ => 0,
    };
    let alive: usize = {
        let over: HashSet<_> = all
            .iter()
            .filter_map(|r| if let Record::Ended(e) = r { Some(e.segment) } else { None })
            .collect();
        all.iter().filter(|r| matches!(r, Record::Began(s) if !over.contains(&s.id))).count()
    };
    let before: u64 = all.iter().map(ended).sum();
    let mut node = Node::new(all, slimmed(POD_OBJECT));
    node.told();
    assert!(node.tallied(SOON, &mut Busy(10)).is_empty(), "it may yet listen");
    // A probe is run meanwhile.
    let mut probe = exec(9_500, own.map(|id| id.0), "/bin/probe");
    probe.start_ns = node.now;
    node.record(Record::Began(probe));
    let told = node.tallied(Duration::from_secs(3), &mut Busy(1_000_000));
    let (status, processes) = (&told[0].status, &told[0].processes);
    let stats = status.kernel_stats.as_ref().expect("numbers");
    let total = stats.total_syscalls.expect("counted");
    assert!(total <= before as i64 + 10 * alive as i64, "{total}: {before} and those of {alive} that live");
    let end = stats.total_duration_ms.expect("a length");
    assert!(
        processes.iter().all(|p| p.end_ms <= end + 0.001 && p.program != "probe"),
        "{end}: {processes:?}"
    );
    let said: Vec<_> = status.timeline.iter().map(|step| step.action.as_str()).collect();
    assert!(said.contains(&"kg-birth was not seen to listen"), "{said:?}");
}
