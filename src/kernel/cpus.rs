//! How many CPUs the machine runs on now, and which it could have.

use std::io;
use std::time::Duration;

use super::clock::Every;

/// CPUs come and go seldom.
const LOOK_EVERY: Duration = Duration::from_secs(60);
const ONLINE: &str = "/sys/devices/system/cpu/online";
const POSSIBLE: &str = "/sys/devices/system/cpu/possible";

/// The number of CPUs that are online, looked up now and then.
#[derive(Debug)]
pub struct Online {
    count: u32,
    look: Every,
}

impl Default for Online {
    fn default() -> Self {
        Online { count: 0, look: Every::new(LOOK_EVERY) }
    }
}

impl Online {
    /// How many there are at `now` (CLOCK_MONOTONIC, ns); 0 where the kernel does not say.
    pub fn count(&mut self, now: u64) -> u32 {
        if self.look.due(now) {
            // The machine's, whatever this process may run on: sched_getaffinity says that of a container.
            let list = std::fs::read_to_string(ONLINE).ok();
            self.count = list.and_then(|list| number(&list)).unwrap_or(0);
        }
        self.count
    }
}

/// The ranges of a list such as `0-3,8`, each `None` if it is none.
fn ranges(list: &str) -> impl Iterator<Item = Option<(u32, u32)>> {
    list.trim().split(',').map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some((first, last))
    })
}

/// How many are in such a list; `None` for what is none.
fn number(list: &str) -> Option<u32> {
    ranges(list).try_fold(0u32, |count, range| {
        let (first, last) = range?;
        count.checked_add((last - first).checked_add(1)?)
    })
}

/// The CPUs that the machine could have, by number: some may be left out.
#[derive(Debug)]
pub(super) struct Possible {
    ranges: Vec<(u32, u32)>,
}

impl Possible {
    /// As many as a kernel can be built for: `MOST_CPUS` in bpf/percpu.h.
    const MOST: u32 = 8192;

    /// This machine's.
    ///
    /// # Errors
    /// When the kernel's list cannot be read.
    pub fn read() -> io::Result<Possible> {
        let list = std::fs::read_to_string(POSSIBLE)?;
        Possible::of(&list)
            .ok_or_else(|| io::Error::other(format!("{POSSIBLE}: not a list of CPUs: {list:?}")))
    }

    /// Of a list such as `0-3,8-11`; `None` if it is not one.
    fn of(list: &str) -> Option<Possible> {
        let ranges: Vec<_> = ranges(list).collect::<Option<_>>()?;
        ranges.iter().all(|(_, last)| *last < Possible::MOST).then_some(Possible { ranges })
    }

    /// The highest number and one: more than their count where numbers are left out.
    pub fn end(&self) -> u32 {
        self.ranges.iter().map(|(_, last)| last + 1).max().unwrap_or_default()
    }

    /// A bit for each, as bpf/percpu.h wants them.
    pub fn bits(&self) -> [u64; Possible::MOST as usize / 64] {
        let mut bits = [0; _];
        for cpu in self.ranges.iter().flat_map(|(first, last)| *first..=*last) {
            bits[cpu as usize / 64] |= 1u64 << (cpu % 64);
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_list_of_cpus_panics() {
        let seeds: [&[u8]; 4] = [b"0-3,8-11\n", b"0\n", b"0-8191\n", b"0-4294967295\n"];
        crate::testfuzz::Mutator::new(&seeds).each(|list| {
            let Ok(list) = std::str::from_utf8(list) else { return };
            let _ = number(list);
            let Some(possible) = Possible::of(list) else { return };
            let bits: u32 = possible.bits().iter().map(|word| word.count_ones()).sum();
            assert!(bits <= possible.end() && possible.end() <= Possible::MOST);
        });
    }

    #[test]
    fn lists_of_cpus() {
        for (list, count) in [("0\n", 1), ("0-3\n", 4), ("0-3,8-11\n", 8), ("0,2,4-5", 4), ("0-4095", 4096)] {
            assert_eq!(number(list), Some(count), "{list}");
        }
        for bad in ["", "\n", "3-0", "a", "0-", "-1", "0,,1", "0-4294967295"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }

    #[test]
    fn possible_cpus_are_known_by_their_numbers() {
        for (list, end) in [("0\n", 1), ("0-1\n", 2), ("0-3,8-11\n", 12), ("5,0,2", 6), ("0-8191", 8192)] {
            let possible = Possible::of(list).expect(list);
            assert_eq!(possible.end(), end, "{list}");
            let bits = possible.bits();
            let has = |cpu: u32| bits[cpu as usize / 64] >> (cpu % 64) & 1 == 1;
            let numbers: Vec<_> = (0..Possible::MOST).filter(|cpu| has(*cpu)).collect();
            assert_eq!(numbers.len() as u32, number(list).expect(list), "{list}");
            assert_eq!(numbers.last(), Some(&(end - 1)), "{list}");
        }
        let [first, second, ..] = Possible::of("0-1,62-65").expect("a list").bits();
        assert_eq!((first, second), (0b11 | 0b11 << 62, 0b11));
        for list in ["", "\n", "0-", "all", "0-8192", "0-4294967295"] {
            assert!(Possible::of(list).is_none(), "{list}");
        }
    }

    /// The oracle is coreutils' `nproc --all`, which asks for the CPUs that are configured, and those that run threads.
    #[test]
    fn this_machines_are_counted() {
        let configured = std::process::Command::new("nproc").arg("--all").output().expect("nproc");
        let configured: u32 = String::from_utf8_lossy(&configured.stdout).trim().parse().expect("a number");
        let online = Online::default().count(1);
        assert!((1..=configured).contains(&online), "{online} of {configured}");
    }
}
