//! A node with thousands of processes that have nothing to do with the pod that is being born.

use crate::bed::cgroup::Cgroup;
use crate::bed::{emulated, until};
use crate::kernel::birth::alone;
use kernel_gossip::attribution::watch::Pods;
use kernel_gossip::birth::{Options, Watcher};
use kernel_gossip::kernel::clock;
use kernel_gossip::kernel::driver::{Driver, DriverOptions, Storage};
use kernel_gossip::kernel::facts::{Facts, FactsOptions};
use kernel_gossip::kernel::plan::plan;

/// Processes that do nothing but live, until this is dropped.
#[derive(Default)]
pub struct Living(Vec<libc::pid_t>);

impl Living {
    pub fn begin(&mut self, processes: usize) {
        for _ in 0..processes {
            // SAFETY: the child makes system calls alone, and ends without unwinding.
            let child = unsafe { libc::fork() };
            assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
            if child == 0 {
                // SAFETY: as above; it is killed, at the latest when its parent's thread ends.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    loop {
                        libc::pause();
                    }
                }
            }
            self.0.push(child);
        }
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        for child in &self.0 {
            // SAFETY: our own children, not reaped yet.
            unsafe {
                libc::kill(*child, libc::SIGKILL);
                libc::waitpid(*child, std::ptr::null_mut(), 0);
            }
        }
    }
}

#[test]
fn processes_that_are_nobodys_give_the_recorders_room_back() {
    let _alone = alone();
    // More in all than there is room for.
    let (rounds, processes) = if emulated() { (2, 200) } else { (4, 1_500) };
    let facts =
        tokio::runtime::Runtime::new().expect("a runtime").block_on(Facts::gather(&FactsOptions::default()));
    let plan = plan(&facts);
    let mut storage = Storage::default();
    let mut driver = Driver::start(&mut storage, DriverOptions::of_births(&facts, &plan, 4096));
    let mut births = Watcher::new(Options::default(), &facts, &plan, &[]);
    births.drive(&mut driver);
    let pods = Pods::default();
    let there = driver.read().changes.clone();
    births.found(&there, clock::instant());
    let _pod =
        Cgroup::at(&format!("kubepods/besteffort/pod00000004-2222-4333-8444-{:012x}", std::process::id()));
    let mut poll = |driver: &mut Driver<'_>| {
        assert!(births.poll(driver, &pods).is_empty(), "nothing is born");
        driver.recorder().expect("a recorder").following()
    };
    until("the recording", || {
        poll(&mut driver);
        driver.recorder()?.recording().then_some(())
    });
    let mut living = Living::default();
    for round in 1..=rounds {
        living.begin(processes);
        let followed = until("their room", || Some(poll(&mut driver)).filter(|n| *n < processes / 4));
        println!("{} live, {followed} are followed", round * processes);
    }
    assert_eq!(driver.birth_losses().segments, 0);
}
