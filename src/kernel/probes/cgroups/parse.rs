//! The kernel's cgroup files as numbers. A file of another shape gives `None`, never a wrong number.

use crate::kernel::{CgroupStat, Pressure};

/// `cpu.stat`: v1 has nr_periods, nr_throttled and throttled_time (ns); v2 has usage_usec,
/// throttled_usec and the first two where the controller is on.
pub fn cpu_stat(text: &str, out: &mut CgroupStat) {
    for line in text.lines() {
        let Some((key, value)) = line.split_once(' ') else {
            continue;
        };
        let value = value.parse::<u64>().ok();
        let from_us = value.and_then(|us| us.checked_mul(1000));
        match key {
            "nr_periods" => out.periods = value,
            "nr_throttled" => out.throttled_periods = value,
            "throttled_time" => out.throttled = value,
            "throttled_usec" => out.throttled = from_us,
            "usage_usec" => out.cpu_usage = from_us,
            _ => {}
        }
    }
}

/// `cpu.max`: "max 100000" or "20000 100000", in us; gives ns.
pub fn cpu_max(text: &str, out: &mut CgroupStat) {
    if let Some((quota, period)) = text.trim_end().split_once(' ') {
        out.quota = micros(quota);
        out.period = micros(period);
    }
}

/// A file of one number.
pub fn number(text: &str) -> Option<u64> {
    text.trim_end().parse().ok()
}

/// A file of one number in us (-1: none); gives ns.
pub fn micros(text: &str) -> Option<u64> {
    number(text)?.checked_mul(1000)
}

/// A PSI file: "some avg10=0.00 avg60=0.00 avg300=0.00 total=4711" (us) and the like for full.
pub fn pressure(text: &str) -> Option<Pressure> {
    let total = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        micros(line.split(' ').find_map(|word| word.strip_prefix("total="))?)
    };
    Some(Pressure { some: total("some")?, full: total("full") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_files() {
        // of a container with 20/100 ms on a hybrid host, kernel 6.18
        let text = "nr_periods 52\nnr_throttled 50\nthrottled_time 3939417353\nnr_bursts 0\nburst_time 0\n";
        let mut stat = CgroupStat::default();
        cpu_stat(text, &mut stat);
        assert_eq!((stat.periods, stat.throttled_periods), (Some(52), Some(50)));
        assert_eq!(stat.throttled, Some(3_939_417_353));
        assert_eq!(stat.cpu_usage, None);
        assert_eq!(micros("20000\n"), Some(20_000_000));
        assert_eq!(micros("-1\n"), None);
    }

    #[test]
    fn v2_files() {
        // kernel 6.12
        let text = "usage_usec 1009254\nuser_usec 1000000\nsystem_usec 9254\nnice_usec 0\ncore_sched.force_idle_usec 0\n\
                    nr_periods 51\nnr_throttled 49\nthrottled_usec 3901234\nnr_bursts 0\nburst_usec 0\n";
        let mut stat = CgroupStat::default();
        cpu_stat(text, &mut stat);
        assert_eq!(stat.cpu_usage, Some(1_009_254_000));
        assert_eq!(stat.throttled, Some(3_901_234_000));
        cpu_max("20000 100000\n", &mut stat);
        assert_eq!((stat.quota, stat.period), (Some(20_000_000), Some(100_000_000)));
        cpu_max("max 100000\n", &mut stat);
        assert_eq!((stat.quota, stat.period), (None, Some(100_000_000)));
    }

    #[test]
    fn pressure_files() {
        let text = "some avg10=1.53 avg60=0.50 avg300=0.11 total=5713\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=21\n";
        assert_eq!(pressure(text), Some(Pressure { some: 5_713_000, full: Some(21_000) }));
        let some = text.lines().next().unwrap_or_default();
        assert_eq!(pressure(some), Some(Pressure { some: 5_713_000, full: None }));
        assert_eq!(pressure("full total=1"), None);
    }

    #[test]
    fn no_file_panics() {
        let seeds: [&[u8]; 5] = [
            b"nr_periods 52\nnr_throttled 50\nthrottled_time 3939417353\nnr_bursts 0\nburst_time 0\n",
            b"usage_usec 1009254\nuser_usec 1000000\nnr_periods 51\nnr_throttled 49\nthrottled_usec 3901234\n",
            b"some avg10=1.53 avg60=0.50 avg300=0.11 total=5713\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=21\n",
            b"max 100000\n",
            b"20000 100000\n",
        ];
        crate::testfuzz::Mutator::new(&seeds).each(|file| {
            // What is no text is refused by whoever reads the file.
            let Ok(text) = std::str::from_utf8(file) else { return };
            let mut stat = CgroupStat::default();
            cpu_stat(text, &mut stat);
            cpu_max(text, &mut stat);
            let _ = (pressure(text), micros(text), number(text));
        });
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let mut stat = CgroupStat::default();
            cpu_stat(&text, &mut stat);
            cpu_max(&text, &mut stat);
            let _ = (pressure(&text), micros(&text));
        }
    }
}
