//! What is not said any more.

use super::*;

#[test]
fn what_is_not_said_any_more_is_over_then_forgotten() {
    let mut b = Bench::new(three_minutes());
    let since = b.wall(0);
    b.say(b.report());
    b.written();
    b.d.stored(&key(), "u1", Stored { uid: "k1".into(), generation: 1 }, b.now());
    assert!(b.pass(180).is_empty());
    let wants = b.pass(1);
    let [Want::Apply { object, stored: Some(_) }] = wants.as_slice() else { panic!("{wants:?}") };
    assert_eq!(status(object).state, WhisperState::Resolved);
    // Said again, with the same beginning: it goes on, and is not another one.
    assert_eq!(b.say_with(|r| r.since = since), Verdict::Changed);
    let kw = b.written().unwrap();
    assert_eq!((status(&kw).state, status(&kw).signals[0].count), (WhisperState::Active, 1));
    b.pass(181);
    let wants = b.pass(3600);
    assert_eq!(wants, [Want::Delete { name: "web-kw".into(), uid: "k1".into() }]);
    assert!(b.d.is_empty());
}

#[test]
fn while_nobody_can_say_anything_nobody_is_silent() {
    let mut b = Bench::new(three_minutes());
    b.say(b.report());
    b.written();
    b.pass(170);
    b.seconds += 600;
    b.d.slept(Duration::from_secs(600));
    b.pass(10);
    assert_eq!(b.d.active(), 1);
    b.pass(1);
    assert_eq!(b.d.active(), 0, "the rest of its time, no more");
}

#[test]
fn forgotten_sooner_than_silence_would_end_it() {
    let mut b = Bench::new(Rules { keep_resolved: Duration::from_secs(2), ..Rules::default() });
    let since = b.wall(0);
    b.say(b.report());
    b.written();
    b.d.stored(&key(), "u1", Stored { uid: "k1".into(), generation: 1 }, b.now());
    b.seconds = 1;
    b.say_with(|r| (r.since, r.active) = (since, false));
    b.written();
    assert!(matches!(b.pass(2).as_slice(), [Want::Delete { .. }]));
}

#[test]
fn an_object_not_stored_yet_is_not_forgotten() {
    let mut b = Bench::new(Rules::default());
    b.say(b.report());
    b.written();
    b.pass(2 * 3600);
    assert_eq!(b.d.len(), 1, "the writer still tries");
    b.d.stored(&key(), "u1", Stored { uid: "k1".into(), generation: 1 }, b.now());
    assert!(matches!(b.pass(1).as_slice(), [Want::Delete { .. }]));
}
