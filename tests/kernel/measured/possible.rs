//! Machines that could have many CPUs.

use std::collections::HashMap;
use std::mem::MaybeUninit;

use kernel_gossip::kernel::Hook;
use kernel_gossip::kernel::cpu::{CpuOptions, DEFAULT_CGROUPS};

use crate::bed::cgroup::Cgroup;
use crate::bed::cpus::with_possible_cpus;
use crate::bed::{emulated, until};
use crate::kernel::cpu::{Reader, alone, options, seconds};

/// What the BPF maps of this process take, bytes, by the kernel's count.
fn maps_take() -> u64 {
    let fds = std::fs::read_dir("/proc/self/fdinfo").expect("fdinfo").flatten();
    let of = |text: String| -> Option<(u64, u64)> {
        let number = |key| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
        number("map_type:")?;
        Some((number("map_id:")?, number("memlock:")?))
    };
    let maps = fds.filter_map(|fd| of(std::fs::read_to_string(fd.path()).ok()?));
    maps.collect::<HashMap<_, _>>().values().sum()
}

/// A machine may have many CPUs that it could have, and numbers that are left out.
#[test]
fn every_number_of_possible_cpus_is_counted_right() {
    let _alone = alone();
    for (list, most) in [("0-127", Some(20_500_000)), ("0-511", None), ("0-3,8-4095", None)] {
        with_possible_cpus(list, || {
            let cgroup = Cgroup::new("many");
            let before = maps_take();
            let mut storage = MaybeUninit::uninit();
            let options = CpuOptions { max_cgroups: DEFAULT_CGROUPS, ..options(Hook::TpBtf) };
            let mut reader = Reader::new(&mut storage, options);
            let maps = maps_take() - before;
            let burners = cgroup.burn(1, Some(0));
            until("half a second of it", || (reader.of(&cgroup).run > 500_000_000).then_some(()));
            let pid = burners.pids().next().expect("one");
            // The kernel's own count of it, before and after.
            let told = || {
                let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("schedstat");
                text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).expect("its run time")
            };
            // What it ran before a switch that the kernel does not tell of, the first one here too, is not known: from here on.
            let (before, known) = (told(), reader.of(&cgroup).run);
            until("another tenth", || (told() > before + 100_000_000).then_some(()));
            let (least, ours, most_run) =
                (told() - before, reader.of(&cgroup).run.saturating_sub(known), told() - before);
            println!(
                "{list}: the maps take {maps} bytes; ran {:.3} s of {:.3} to {:.3}",
                seconds(ours),
                seconds(least),
                seconds(most_run)
            );
            // A run in progress is not whole, and one that ended by a switch not told of is taken to go on. An emulated CPU that
            // has to wait for a real one tells the time late.
            let late = if emulated() { 100_000_000 } else { 50_000_000 };
            assert!(ours + late >= least && ours <= most_run + late, "{list}");
            assert_eq!(reader.losses.slots_exhausted, 0);
            assert!(most.is_none_or(|most| maps <= most), "{list}: {maps} bytes");
        });
    }
}
