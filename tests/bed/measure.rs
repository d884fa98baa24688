//! What measurements share.

use std::time::Duration;

use procfs::process::Process;

pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// CPU time of a process so far, s, and its resident memory, MiB.
pub fn spent(pid: u32) -> (f64, f64) {
    let process = Process::new(pid as i32).expect("the process");
    let stat = process.stat().expect("stat");
    let ticks = procfs::ticks_per_second() as f64;
    ((stat.utime + stat.stime) as f64 / ticks, (stat.rss * procfs::page_size()) as f64 / f64::from(1 << 20))
}
