//! How many CPUs the machine runs on now, and how many it could have.

use std::time::Duration;

use super::clock::Every;

/// CPUs come and go seldom.
const LOOK_EVERY: Duration = Duration::from_secs(60);
const ONLINE: &str = "/sys/devices/system/cpu/online";

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

/// The highest possible CPU's number and one: what the programs know a CPU by, which is more than their count where numbers
/// are left out.
///
/// # Errors
/// When nobody tells how many there are.
pub(super) fn possible() -> Result<u32, libbpf_rs::Error> {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    match cpus_of(&list) {
        Some(cpus) => Ok(cpus),
        None => libbpf_rs::num_possible_cpus().map(|n| n as u32),
    }
}

/// The highest number and one, of a list as in `/sys/devices/system/cpu/possible` (`0-3,8-11`); `None` if it is not one.
fn cpus_of(list: &str) -> Option<u32> {
    ranges(list).try_fold(0u32, |most, range| Some(most.max(range?.1.checked_add(1)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn cpus_are_counted_by_their_numbers() {
        for (list, cpus) in [("0\n", 1), ("0-1\n", 2), ("0-3,8-11\n", 12), ("0,2,5", 6), ("0-4095", 4096)] {
            assert_eq!(cpus_of(list), Some(cpus), "{list}");
        }
        for list in ["", "\n", "0-", "all", "0-4294967295"] {
            assert_eq!(cpus_of(list), None, "{list}");
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
