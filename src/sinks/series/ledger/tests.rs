use super::*;
use crate::signals::Transition;
use crate::sinks::testdata::{container, moment, reading, second, whisper};

fn exported(ledger: &mut Ledger) -> Vec<String> {
    let mut pods = Vec::new();
    ledger.export(|account| pods.extend(account.who.pod.clone()));
    pods.sort_unstable();
    pods
}

fn only(ledger: &mut Ledger) -> Account {
    let mut all = ledger.accounts();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn counters_begin_when_they_can_have_begun() {
    let (old, new) = (container("shop", "old", "app"), container("shop", "new", "app"));
    let mut ledger = Ledger::new(moment(100), true);
    ledger.observe(&reading(std::slice::from_ref(&old), 110));
    ledger.observe(&reading(&[old, new], 120));
    let all = ledger.accounts();
    let began = |pod: &str| {
        let account = all.iter().find(|a| a.who.pod.as_deref() == Some(pod)).expect("an account");
        (account.probe_since, account.stat_since)
    };
    assert_eq!(began("old"), (moment(100).unix_ns, moment(0).unix_ns), "agent's start, boot");
    assert_eq!(began("new"), (moment(110).unix_ns, moment(110).unix_ns), "the reading before");
    assert_eq!(all[0].who.pod.as_deref(), Some("new"), "newest first");
}

#[test]
fn a_counter_that_shrank_began_anew() {
    let who = [container("shop", "web", "app")];
    let mut ledger = Ledger::new(moment(100), true);
    ledger.observe(&reading(&who, 200));
    let mut restarted = reading(&who, 5);
    restarted.at = moment(210);
    ledger.observe(&restarted);
    let account = only(&mut ledger);
    assert_eq!(account.probe_since, moment(200).unix_ns);
    assert_eq!(account.stat_since, moment(200).unix_ns);
    assert_eq!(account.first_seen, moment(100).unix_ns);
}

#[test]
fn a_workload_that_is_gone_is_exported_once_more_and_kept_for_a_minute() {
    let all = [container("shop", "a", "app"), container("shop", "b", "app")];
    let mut ledger = Ledger::new(moment(0), true);
    ledger.observe(&reading(&all, 10));
    assert_eq!(exported(&mut ledger), ["a", "b"]);
    let mut last = reading(&all, 11);
    last.samples[1].last = true;
    ledger.observe(&last);
    assert_eq!(exported(&mut ledger), ["a", "b"], "its last numbers are new");
    ledger.observe(&reading(&all[..1], 12));
    assert_eq!(exported(&mut ledger), ["a"]);
    assert_eq!(ledger.accounts().len(), 2);
    ledger.observe(&reading(&all[..1], 11 + KEEP_DEPARTED / second(1)));
    assert_eq!(ledger.accounts().len(), 1);
}

#[test]
fn what_was_never_exported_is_kept_until_it_is_or_counted() {
    let all: Vec<_> = (0..MAX_DEPARTED + 5).map(|i| container("jobs", &format!("j{i}"), "run")).collect();
    let mut ledger = Ledger::new(moment(0), true);
    ledger.observe(&reading(&all, 10));
    ledger.observe(&reading(&[], 1000));
    assert_eq!(ledger.dropped(), 5);
    ledger.observe(&reading(&[], 2000));
    assert_eq!(exported(&mut ledger).len(), MAX_DEPARTED);
    ledger.observe(&reading(&[], 3000));
    assert_eq!(ledger.accounts().len(), 0);
    // Without an exporter nothing waits for one; what scrapes cannot see for a minute is lost all the same.
    let mut ledger = Ledger::new(moment(0), false);
    ledger.observe(&reading(&all, 10));
    ledger.observe(&reading(&[], 1000));
    assert_eq!((ledger.accounts().len(), ledger.dropped()), (MAX_DEPARTED, 5));
    ledger.observe(&reading(&[], 2000));
    assert_eq!((ledger.accounts().len(), ledger.dropped()), (0, 5), "these were there for a minute");
}

#[test]
fn what_was_exported_is_lost_only_to_scrapes() {
    let all: Vec<_> = (0..MAX_DEPARTED + 5).map(|i| container("jobs", &format!("j{i}"), "run")).collect();
    for (scraped, lost) in [(false, 0), (true, 5)] {
        let ledger = Ledger::new(moment(0), true);
        let mut ledger = if scraped { ledger.scraped() } else { ledger };
        ledger.observe(&reading(&all[..MAX_DEPARTED], 10));
        let mut some = reading(&all[..MAX_DEPARTED], 11);
        some.samples.iter_mut().for_each(|sample| sample.last = true);
        ledger.observe(&some);
        exported(&mut ledger);
        let mut more = reading(&all[MAX_DEPARTED..], 12);
        more.samples.iter_mut().for_each(|sample| sample.last = true);
        ledger.observe(&more);
        assert_eq!(ledger.dropped(), lost, "scraped: {scraped}");
    }
}

#[test]
fn one_severity_of_a_signal_is_active_at_a_time() {
    let who = container("shop", "web", "app");
    let mut ledger = Ledger::new(moment(0), true);
    ledger.observe(&reading(std::slice::from_ref(&who), 10));
    let mut say = |severity, transition| {
        let whisper = whisper(&who, SignalKind::CpuThrottle, transition, 10);
        ledger.whisper(&Whisper { severity, ..whisper });
        only(&mut ledger).whispers
    };
    let (warning, critical) = (Severity::Warning, Severity::Critical);
    let throttle = SignalKind::CpuThrottle;
    assert_eq!(say(warning, Transition::Started), [(throttle, warning, true)]);
    assert_eq!(say(critical, Transition::Changed), [(throttle, warning, false), (throttle, critical, true)]);
    assert_eq!(
        say(critical, Transition::Resolved),
        [(throttle, warning, false), (throttle, critical, false)]
    );
}

/// Under gVisor, and under Kata in some layouts, a pod's work is all done in the cgroup of its sandbox.
#[test]
fn a_sandbox_that_does_work_is_published_and_a_pause_container_is_not() {
    let sandbox = |pod: &str| {
        let mut who = Workload::clone(&container("shop", pod, "x"));
        (who.kind, who.container) = (WorkloadKind::Sandbox, None);
        Arc::new(who)
    };
    let all = [container("shop", "web", "app"), sandbox("pause"), sandbox("gvisor")];
    let mut ledger = Ledger::new(moment(0), true);
    let mut at = |used: u64, s: u64| {
        let mut reading = reading(&all, s);
        for (sample, used) in reading.samples[1..].iter_mut().zip([50_000_000, used]) {
            sample.stat.cpu_usage = Some(used);
            sample.cpu = sample.cpu.map(|cpu| crate::kernel::CpuCounters { run: used, ..cpu });
        }
        ledger.observe(&reading);
        exported(&mut ledger)
    };
    assert_eq!(at(900_000_000, 10), ["web"]);
    assert_eq!(at(1_000_000_000, 11), ["gvisor", "web"]);
    let gvisor = ledger.accounts().into_iter().find(|a| a.who.pod.as_deref() == Some("gvisor"));
    let gvisor = gvisor.expect("an account");
    assert_eq!((gvisor.who.kind, gvisor.probe_since), (WorkloadKind::Sandbox, moment(0).unix_ns));
    ledger.observe(&reading(&[], 12));
    ledger.observe(&reading(&[], 13));
    assert_eq!(ledger.accounts().len(), 2, "kept for a minute, and the pause container is not");
    assert_eq!(ledger.dropped(), 0);
}
