//! Why a kernel refuses a BPF program, in words for the owner of the host: the error code alone says
//! little.

use super::Hook;
use super::facts::{Facts, Trial};
use super::verdict::Shortfall;

/// Memory that BPF maps need at the most, where it counts as locked memory.
const LOCKED_MEMORY: u64 = 32 << 20;

/// Why this program does not load or attach; the likeliest cause first.
pub fn of(facts: &Facts, trial: &Trial) -> Shortfall {
    known(facts).unwrap_or_else(|| {
        let error = trial.error().unwrap_or_else(|| "it is not allowed".to_string());
        let suspect = if facts.privileges.seccomp {
            "see whether a seccomp profile or a security module forbids bpf()"
        } else {
            "see whether a security module forbids bpf(), and the kernel's log"
        };
        Shortfall::new(format!("BPF is refused ({error})"), suspect)
    })
}

/// The same for the cgroup iterator, which is younger than other programs.
pub fn of_iterator(facts: &Facts, trial: &Trial) -> Shortfall {
    known(facts).unwrap_or_else(|| {
        if facts.kernel.at_least(6, 1) {
            return of(facts, trial);
        }
        Shortfall::new("this kernel has no iterator over cgroups", "use a kernel of 6.1 or later")
    })
}

/// What keeps programs off that enter by tracepoints without types and read the kernel's memory, and these trials beside; `None`:
/// nothing. For what is rare: such an entry is the same on every kernel, and that it costs more than a typed one does not matter.
pub fn of_raw(facts: &Facts, beside: &[&Trial]) -> Option<Shortfall> {
    let trials = &facts.trials;
    let needed = [&trials.raw_tracepoint, &trials.read_kernel].into_iter().chain(beside.iter().copied());
    let refused = needed.into_iter().find(|trial| !trial.works());
    let refused = refused.or_else(|| Hook::best(facts).is_none().then_some(&trials.raw_tracepoint));
    refused.map(|trial| of(facts, trial))
}

/// Causes that are facts by themselves.
fn known(facts: &Facts) -> Option<Shortfall> {
    let privileges = &facts.privileges;
    let missing: Vec<_> = ["BPF", "PERFMON"].into_iter().filter(|name| !privileges.has(name)).collect();
    if let Some(error) = &facts.btf.error {
        return Some(Shortfall::new(
            format!("the kernel's types (BTF) cannot be read: {error}"),
            "use a kernel with CONFIG_DEBUG_INFO_BTF, and let the file be read",
        ));
    }
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|name| format!("CAP_{name}")).collect();
        return Some(Shortfall::new(
            format!("BPF is refused without {}", names.join(" and ")),
            format!(
                "run as root, or with these; in a pod: securityContext.capabilities.add: [{}]",
                missing.join(", ")
            ),
        ));
    }
    if privileges.user_namespace {
        return Some(Shortfall::new(
            "BPF is refused in a user namespace",
            "run in the host's user namespace (in a pod: hostUsers: true)",
        ));
    }
    if let Some(shortfall) = locked_memory(facts) {
        return Some(shortfall);
    }
    let trials = &facts.trials;
    if trials.raw_tracepoint.works() && !trials.read_kernel.works() {
        return Some(Shortfall::new(
            "lockdown=confidentiality keeps BPF from reading kernel memory",
            "boot with lockdown=integrity or none if that may be",
        ));
    }
    None
}

/// Before 5.11 maps count as locked memory (moved to the memory cgroup's account by Roman Gushchin's
/// "bpf: switch to memcg-based memory accounting", 5.11).
pub fn locked_memory(facts: &Facts) -> Option<Shortfall> {
    let privileges = &facts.privileges;
    let limit = privileges.locked_memory?;
    if facts.kernel.at_least(5, 11) || privileges.has("SYS_RESOURCE") || limit >= LOCKED_MEMORY {
        return None;
    }
    Some(Shortfall::new(
        format!("BPF maps do not fit: no more than {} KiB of memory may be locked", limit >> 10),
        "add CAP_SYS_RESOURCE, or raise the limit (systemd: LimitMEMLOCK=infinity)",
    ))
}
