use super::*;

const SEC: Duration = Duration::from_secs(1);

fn rates() -> Rates {
    Rates { capacity: 10, per_second: 10.0, burst: 5, object_interval: 20 * SEC, object_burst: 2 }
}

fn job<W>(next: Next<&'static str, W>) -> Job<&'static str, W> {
    match next {
        Next::Job(job) => job,
        Next::Wait(_) | Next::Empty => panic!("nothing to do"),
    }
}

#[test]
fn the_latest_wish_wins() {
    let (mut q, now) = (Schedule::new(rates()), Instant::now());
    let (tx1, mut rx1) = oneshot::channel();
    let (tx2, mut rx2) = oneshot::channel();
    assert!(q.push("a", 1, Some(tx1), now) && q.push("b", 2, None, now) && q.push("a", 3, Some(tx2), now));
    assert_eq!(q.len(), 2);
    let a = job(q.pop(now));
    assert_eq!((a.key, a.work, a.waiters.len()), ("a", 3, 2), "keeps its place, tells both");
    a.waiters.into_iter().for_each(|w| w.send(true).unwrap());
    assert!(rx1.try_recv().unwrap() && rx2.try_recv().unwrap());
    // Who does not wait any more is forgotten, however often it is said again.
    for _ in 0..9 {
        assert!(q.push("b", 2, Some(oneshot::channel().0), now));
    }
    assert_eq!(q.entries["b"].waiters.len(), 1);
    assert_eq!(job(q.pop(now)).key, "b");
    assert!(matches!(q.pop(now), Next::Empty));
}

#[test]
fn one_writer_an_object() {
    let (mut q, now) = (Schedule::new(rates()), Instant::now());
    q.push("a", 1, None, now);
    assert_eq!(job(q.pop(now)).work, 1);
    q.push("a", 2, None, now);
    assert!(matches!(q.pop(now), Next::Empty), "being written");
    assert_eq!(q.len(), 1);
    q.done(&"a", now);
    assert_eq!(job(q.pop(now)).work, 2);
}

#[test]
fn an_object_is_not_written_faster_than_its_rate() {
    let (mut q, now) = (Schedule::new(rates()), Instant::now());
    for _ in 0..2 {
        q.push("a", 1, None, now);
        job(q.pop(now));
        q.done(&"a", now);
    }
    q.push("a", 3, None, now);
    let Next::Wait(at) = q.pop(now) else { panic!("too fast") };
    assert_eq!(at - now, 20 * SEC);
    q.push("b", 1, None, now);
    assert_eq!(job(q.pop(now)).key, "b", "does not hold up others");
    assert_eq!(job(q.pop(now + 20 * SEC)).key, "a");
}

#[test]
fn all_together_are_not_written_faster_than_the_total_rate() {
    let (mut q, start) = (Schedule::new(rates()), Instant::now());
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    for key in keys {
        assert!(q.push(key, 1, None, start));
    }
    assert!(!q.push("k", 1, None, start), "bounded");
    let (mut now, mut written) = (start, 0);
    while written < keys.len() {
        match q.pop(now) {
            Next::Job(j) => {
                written += 1;
                q.done(&j.key, now);
            }
            Next::Wait(at) => now = at,
            Next::Empty => panic!("lost one"),
        }
    }
    assert_eq!(now - start, SEC / 2, "a burst of 5, then 10 a second");
}

#[test]
fn failures_wait_longer_and_longer_and_give_way_to_news() {
    let (mut q, mut now) = (Schedule::new(Rates { object_interval: SEC / 100, ..rates() }), Instant::now());
    q.push("a", 1, None, now);
    let waits = waits(&mut q, Retry::Soon, &mut now);
    assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000, 10_000, 10_000]);
    let j = job(q.pop(now));
    let (tx, _rx) = oneshot::channel();
    q.push("a", 2, Some(tx), now);
    q.failed(j, Retry::After(3 * SEC), now);
    let Next::Wait(at) = q.pop(now) else { panic!("no wait") };
    assert_eq!(at - now, 3 * SEC, "as the API server says");
    let j = job(q.pop(at));
    assert_eq!((j.work, j.attempts, j.waiters.len()), (2, 11, 1));
    q.done(&"a", at);
    assert!(q.is_empty());

    now = at;
    q.push("b", 1, None, now);
    let waits = self::waits(&mut q, Retry::Blocked, &mut now);
    assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
}

/// What the one object waits for while all of its writes fail.
fn waits(q: &mut Schedule<&'static str, i32>, retry: Retry, now: &mut Instant) -> Vec<u128> {
    let wait = |_| {
        let j = job(q.pop(*now));
        q.failed(j, retry, *now);
        let Next::Wait(at) = q.pop(*now) else { panic!("no wait") };
        let wait = (at - *now).as_millis();
        *now = at;
        wait
    };
    (0..10).map(wait).collect()
}

#[test]
fn a_write_that_is_barred_is_not_tried_faster_than_its_object_may_be_written() {
    let (mut q, mut now) = (Schedule::new(rates()), Instant::now());
    q.push("a", 1, None, now);
    let waits = waits(&mut q, Retry::Blocked, &mut now);
    assert_eq!(waits[0], 250, "of its two at once");
    assert_eq!(waits[1..5], [19_750, 20_000, 20_000, 20_000], "then one in 20 s");
}

#[test]
fn buckets_of_quiet_objects_are_forgotten() {
    let mut q = Schedule::new(Rates { capacity: 1 << 20, per_second: 1e9, burst: 1, ..rates() });
    let mut now = Instant::now();
    for i in 0..5000 {
        now += SEC;
        q.push(i, (), None, now);
        let Next::Job(j) = q.pop(now) else { panic!("nothing") };
        q.done(&j.key, now);
    }
    assert!(q.objects.len() <= 1100, "{}", q.objects.len());
}

proptest::proptest! {
    /// Whatever happens: nothing pushed last is lost, no object is with two writers, the bound holds.
    #[test]
    fn nothing_is_lost(steps in proptest::collection::vec((0u8..4, 0u8..12), 0..200)) {
        let mut q: Schedule<u8, usize> = Schedule::new(rates());
        let mut now = Instant::now();
        let mut held: Vec<Job<u8, usize>> = Vec::new();
        let mut last: HashMap<u8, usize> = HashMap::new();
        for (i, (what, key)) in steps.into_iter().enumerate() {
            now += Duration::from_millis(700);
            match what {
                0 => {
                    if q.push(key, i, None, now) {
                        last.insert(key, i);
                    }
                }
                1 => {
                    if let Next::Job(j) = q.pop(now) {
                        proptest::prop_assert!(held.iter().all(|h| h.key != j.key));
                        held.push(j);
                    }
                }
                2 => {
                    if let Some(j) = held.pop() {
                        if last.get(&j.key) == Some(&j.work) {
                            last.remove(&j.key);
                        }
                        q.done(&j.key, now);
                    }
                }
                _ => {
                    if let Some(j) = held.pop() {
                        q.failed(j, Retry::Soon, now);
                    }
                }
            }
            proptest::prop_assert!(q.len() <= 10);
        }
        for j in held {
            q.failed(j, Retry::Soon, now);
        }
        while !q.is_empty() {
            match q.pop(now) {
                Next::Job(j) => {
                    if last.get(&j.key) == Some(&j.work) {
                        last.remove(&j.key);
                    }
                    q.done(&j.key, now);
                }
                Next::Wait(at) => now = at,
                Next::Empty => break,
            }
        }
        proptest::prop_assert!(last.is_empty(), "{last:?}");
    }
}
