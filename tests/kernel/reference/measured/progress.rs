//! A run that is in progress when the probe is read.

use std::mem::MaybeUninit;
use std::thread::sleep;
use std::time::{Duration, Instant};

use kernel_gossip::kernel::Hook;

use crate::bed::cgroup::Cgroup;
use crate::bed::{emulated, until};
use crate::kernel::cpu::{Moment, Reader, alone, options, seconds};
use crate::kernel::reference::compare::too_slow;
use crate::kernel::reference::load::{Class, Thread, Work};
use crate::kernel::reference::scene::{Channels, Group, Player, cpus, ms, prepare, thread};

/// When a loop begins that nothing takes off its CPU.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Begins {
    BeforeTheProbe,
    BeforeAReading,
    BetweenReadings,
}

/// It has run as long as time has passed.
#[test]
fn a_run_in_progress_is_counted_as_far_as_it_is() {
    if cpus() < 2 {
        return println!("one CPU: whoever reads takes the loop off it");
    }
    if too_slow() {
        return;
    }
    let _alone = alone();
    let cpu = cpus() - 1;
    let fifo = Thread { class: Class::Fifo { priority: 10 }, ..thread(Work::Busy, cpu) };
    // It ends before its budget of a second does; an emulated CPU takes seconds to load the probe, and has no such budget but
    // that of all, 95 %.
    let group = Group { realtime_us: Some(900_000), ..Group::of(vec![fifo]) };
    let short = if emulated() { 0.06 } else { 0.01 };
    let mut loading = Duration::ZERO;
    for begins in [Begins::BeforeAReading, Begins::BetweenReadings, Begins::BeforeTheProbe] {
        let cgroup = Cgroup::new("progress");
        prepare(&cgroup, &group);
        let length = ms(450) + 3 * loading;
        let mut player = Player::start(&cgroup, &group, length.as_millis() as u64, &mut Channels::default());
        player.ready();
        let mut storage = MaybeUninit::uninit();
        let (mut reader, first);
        if begins == Begins::BeforeTheProbe {
            player.order();
            // It has been there for a while.
            sleep(ms(20));
            reader = Reader::new(&mut storage, options(Hook::TpBtf));
            first = reader.moment();
        } else {
            let begun = Instant::now();
            reader = Reader::new(&mut storage, options(Hook::TpBtf));
            loading = begun.elapsed();
            first = if begins == Begins::BeforeAReading {
                player.order();
                until("the loop on its CPU", || {
                    reader.read().get(&cgroup.id()).filter(|c| c.switches > 0).map(|_| ())
                });
                reader.moment()
            } else {
                let first = reader.moment();
                player.order();
                first
            };
        }
        sleep(ms(200));
        let last = reader.moment();
        let run = |moment: &Moment| seconds(moment.of.get(&cgroup.id()).map_or(0, |counters| counters.run));
        let (ran, passed) = (run(&last) - run(&first), last.since(&first));
        println!("{begins:?}: ran {ran:.4} s in {:.4} to {:.4} s", passed.start(), passed.end());
        assert!(ran >= passed.start() * (1.0 - short) - 0.002 && ran <= passed.end() * 1.01 + 0.002);
        drop(player);
        // A group that is gone would keep its budget for a while.
        if cgroup.dir().join("cpu.rt_runtime_us").exists() {
            cgroup.write("cpu.rt_runtime_us", "0");
        }
    }
}
