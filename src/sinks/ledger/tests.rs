use super::super::testdata::{container, moment, reading, second, whisper};
use super::*;
use crate::signals::Transition;

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
    // Without an exporter nothing waits for one, and nothing is lost.
    let mut ledger = Ledger::new(moment(0), false);
    ledger.observe(&reading(&all, 10));
    ledger.observe(&reading(&[], 1000));
    assert_eq!((ledger.accounts().len(), ledger.dropped()), (MAX_DEPARTED, 0));
    ledger.observe(&reading(&[], 2000));
    assert!(ledger.accounts().is_empty());
}

#[test]
fn one_severity_of_a_signal_is_active_at_a_time() {
    let who = container("shop", "web", "app");
    let mut ledger = Ledger::new(moment(0), true);
    ledger.observe(&reading(std::slice::from_ref(&who), 10));
    let mut say = |severity, transition| {
        let whisper = whisper(&who, SignalType::CpuThrottle, transition, 10);
        ledger.whisper(&Whisper { severity, ..whisper });
        only(&mut ledger).whispers
    };
    let (warning, critical) = (Severity::Warning, Severity::Critical);
    let throttle = SignalType::CpuThrottle;
    assert_eq!(say(warning, Transition::Started), [(throttle, warning, true)]);
    assert_eq!(say(critical, Transition::Changed), [(throttle, warning, false), (throttle, critical, true)]);
    assert_eq!(
        say(critical, Transition::Resolved),
        [(throttle, warning, false), (throttle, critical, false)]
    );
}
