//! Dropped packets against the counters of iptables: whose they are, and why.

mod counters;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use procfs::KernelVersion;

use crate::bed::cgroup::{Version, cpu_tree, pin};
use crate::bed::cpus::{possible_cpus, with_possible_cpus};
use crate::bed::net::{Netns, Nets, send};
use crate::bed::{emulated, until};
use kernel_gossip::kernel::probe::{ObjectStorage, Probe};
use kernel_gossip::kernel::probes::drops::{DropsOptions, NetworkOptions, NetworkProbe, TaskWalkOptions};
use kernel_gossip::kernel::{
    CgroupKey, DropReading, Hierarchy, Hook, Instant, NamespaceReading, PacketCounters, Reading, TcpCounters,
    clock,
};

const PACKETS: u32 = 2000;

/// This kernel tells why a packet is dropped, and has an iterator over cgroups.
fn tells() -> bool {
    let tells = KernelVersion::current().expect("version") >= KernelVersion::new(6, 1, 0);
    if !tells {
        println!("a kernel that gives no reasons");
    }
    tells
}

fn options() -> DropsOptions {
    let hierarchy = match cpu_tree().version {
        Version::V1 => Hierarchy::V1Cpu,
        Version::V2 => Hierarchy::Unified,
    };
    let root = cpu_tree().mount.clone();
    DropsOptions { hook: Hook::TpBtf, root, hierarchy, judge_unspecified: true, max_cgroups: 1024 }
}

/// Each way in which this kernel's namespaces can be counted.
fn ways() -> Vec<NetworkOptions> {
    let hierarchy = options().hierarchy;
    let by_cgroups = tells().then(|| NetworkOptions::Packets(options()));
    by_cgroups.into_iter().chain([NetworkOptions::Counters(TaskWalkOptions { hierarchy })]).collect()
}

struct Reader<'obj> {
    probe: NetworkProbe<'obj>,
    reading: Reading,
    now: u64,
}

impl<'obj> Reader<'obj> {
    fn new(storage: &'obj mut ObjectStorage, options: DropsOptions) -> Self {
        Reader::of(storage, NetworkOptions::Packets(options))
    }

    fn of(storage: &'obj mut ObjectStorage, options: NetworkOptions) -> Self {
        let probe = NetworkProbe::load(storage, options).unwrap_or_else(|e| panic!("{e}"));
        let mut reader = Reader { probe, reading: Reading::default(), now: clock::now() };
        reader.read();
        reader
    }

    /// A reading that walks.
    fn read(&mut self) {
        self.now += 30_000_000_000;
        self.reading = Reading { at: Instant { mono_ns: self.now, unix_ns: 0 }, ..Reading::default() };
        self.probe.read(&mut self.reading);
    }

    fn space(&self, of: &Netns) -> NamespaceReading {
        let name = match self.probe {
            NetworkProbe::Packets(_) => of.cookie(),
            NetworkProbe::Counters(_) => of.number(),
        };
        let found = self.reading.namespaces.iter().find(|n| n.namespace == name);
        *found.unwrap_or_else(|| panic!("{} is not among {:?}", of.name, self.reading.namespaces))
    }

    fn packets(&self, of: &Netns) -> PacketCounters {
        self.space(of).counters
    }

    /// Packets dropped in a namespace that it does not count as sent.
    fn uncounted(&self, of: &Netns) -> u64 {
        let cookie = of.cookie();
        let these = self.reading.drops.iter().filter(|d| d.namespace == cookie && d.uncounted);
        these.map(|d| d.packets).sum()
    }

    /// Reason, direction and number of the packets of this namespace that were dropped in it, or in that of the host.
    fn drops(&self, of: &Netns, host: &Netns) -> Vec<(&'static str, bool, u64)> {
        let (cookie, host) = (of.cookie(), host.cookie());
        let mut all: Vec<(&'static str, bool, u64)> = Vec::new();
        for DropReading { namespace, out, other, reason, packets, .. } in &self.reading.drops {
            let out = match other {
                Some((other, out)) if *namespace == host && *other == cookie => *out,
                _ if *namespace == cookie && cookie != host => *out,
                None if *namespace == cookie => *out,
                _ => continue,
            };
            match all.iter_mut().find(|known| (known.0, known.1) == (reason.name(), out)) {
                Some(known) => known.2 += packets,
                None => all.push((reason.name(), out, *packets)),
            }
        }
        all
    }
}

/// A socket in a namespace that takes what comes, and room for all of it.
fn receiver(of: &Netns, port: u16) -> UdpSocket {
    of.inside(|| {
        let socket = UdpSocket::bind(("0.0.0.0", port)).expect("a socket");
        let size: libc::c_int = 16 << 20;
        // SAFETY: the size of the value that is pointed to.
        let result = unsafe {
            libc::setsockopt(
                std::os::fd::AsRawFd::as_raw_fd(&socket),
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const size).cast(),
                size_of_val(&size) as u32,
            )
        };
        assert_eq!(result, 0);
        socket
    })
}

/// One in twenty of a pod's packets is dropped in each place on its way in turn: the namespace, the direction, the reason
/// and the number are those of the rule, the share is 5 %, and the pod's interfaces say nothing.
fn five_percent(bridged: bool) {
    if !tells() {
        return;
    }
    let nets = Nets::new(bridged);
    let _receiver = receiver(&nets.b, 7000);
    let mut storage = ObjectStorage::default();
    let mut reader = Reader::new(&mut storage, options());
    let to = format!("{}:7000", nets.address_b);
    assert_eq!(send(&nets.a, &to, 10), 0);
    let idle = Netns::new("idle");
    for (name, place, chain, victim, out) in [
        ("OUTPUT of the sender", &nets.a, "OUTPUT", &nets.a, true),
        ("FORWARD of the host", &nets.host, "FORWARD", &nets.a, true),
        ("INPUT of the receiver", &nets.b, "INPUT", &nets.b, false),
    ] {
        let drop = format!("{chain} -p udp -m statistic --mode nth --every 20 --packet 0 -j DROP");
        place.iptables(&format!("-A {drop}"));
        reader.read();
        let (before, drops_before) = (reader.packets(victim), reader.drops(victim, &nets.host));
        let by_rule = |reader: &Reader<'_>, of: &Netns| {
            let all = reader.drops(of, &nets.host);
            all.iter().filter(|d| d.0 == "NETFILTER_DROP").map(|d| d.2).sum::<u64>()
        };
        let others = [&nets.a, &nets.b, &nets.host, &idle].map(|n| (n, by_rule(&reader, n)));
        let (quiet, uncounted) = (victim.interface_drops(), reader.uncounted(victim));
        send(&nets.a, &to, PACKETS);
        reader.read();
        let (after, drops) = (reader.packets(victim), reader.drops(victim, &nets.host));
        let dropped = place.taken(chain, "DROP");
        let of_rule = dropped as f64 / f64::from(PACKETS) * 100.0;
        assert!((4.5..=6.0).contains(&of_rule), "{name}: {}", place.iptables("-nvxL"));
        let count = |drops: &[(&str, bool, u64)]| {
            drops.iter().find(|d| (d.0, d.1) == ("NETFILTER_DROP", out)).map_or(0, |d| d.2)
        };
        assert_eq!(count(&drops) - count(&drops_before), dropped, "{name}: {drops:?}");
        // Before 6.7 what OUTPUT drops is not in what the namespace counts.
        let lacking = reader.uncounted(victim) - uncounted;
        let packets = after.packets - before.packets + lacking;
        let share = dropped as f64 / packets as f64 * 100.0;
        assert!(
            (share - of_rule).abs() < 0.5,
            "{name}: {share:.2} % of {packets}, the rule's {of_rule:.2} %"
        );
        println!("{name}: {share:.2} %, {dropped} packets");
        for (other, before) in others {
            if !std::ptr::eq(other, victim) {
                assert_eq!(by_rule(&reader, other), before, "{name}: {}", other.name);
            }
        }
        assert_eq!(victim.interface_drops(), quiet, "{name}: invisible to the usual metrics");
        assert_eq!(victim.cookie(), reader.space(victim).namespace);
        place.iptables(&format!("-D {drop}"));
    }
    let mut lost = Vec::new();
    reader.probe.losses(&mut lost);
    assert!(lost.iter().all(|lost| lost.total == 0), "{lost:?}");
}

#[test]
fn five_percent_of_a_pods_packets_in_each_place() {
    five_percent(false);
}

/// A bridge's port is not on the way of a routed packet any more: the address says whose it is.
#[test]
fn five_percent_behind_a_bridge() {
    five_percent(true);
}

/// The cgroups with tasks in a namespace are told.
#[test]
fn a_namespace_is_told_with_its_cgroup() {
    if !tells() {
        return;
    }
    let pod = Netns::new("pod");
    let mut storage = ObjectStorage::default();
    let mut reader = Reader::new(&mut storage, options());
    let key = CgroupKey { hierarchy: options().hierarchy, id: pod.cgroup.id() };
    let cookie = pod.cookie();
    assert!(reader.reading.members.contains(&(cookie, key)), "{:?}", reader.reading.members);
    // One that begins later is found when cgroups were made.
    let late = Netns::new("late");
    reader.read();
    assert!(reader.reading.members.iter().any(|(space, _)| *space == late.cookie()));
    // One that is gone is not told for long.
    drop(pod);
    until("its end", || {
        reader.read();
        (!reader.reading.namespaces.iter().any(|n| n.namespace == cookie)).then_some(())
    });
}

/// A socket that reads nothing, with room for a few datagrams, and 500 sent to it.
fn fill_a_small_buffer(nets: &Nets) -> UdpSocket {
    let small = nets.b.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:7000").expect("a socket");
        let size: libc::c_int = 2048;
        // SAFETY: the size of the value that is pointed to.
        let result = unsafe {
            libc::setsockopt(
                std::os::fd::AsRawFd::as_raw_fd(&socket),
                libc::SOL_SOCKET,
                libc::SO_RCVBUF,
                (&raw const size).cast(),
                size_of_val(&size) as u32,
            )
        };
        assert_eq!(result, 0);
        socket
    });
    send(&nets.a, &format!("{}:7000", nets.address_b), 500);
    small
}

/// A full socket buffer and a port without socket, each as the namespace counts it.
#[test]
fn buffers_that_overflow_are_named() {
    if !tells() {
        return;
    }
    let nets = Nets::new(false);
    let mut storage = ObjectStorage::default();
    let mut reader = Reader::new(&mut storage, options());

    let small = fill_a_small_buffer(&nets);
    let full = until("drops", || Some(nets.b.counter("Udp", "RcvbufErrors")).filter(|n| *n > 0));
    drop(small);
    send(&nets.a, &format!("{}:7999", nets.address_b), 50);
    let closed = nets.b.counter("Udp", "NoPorts");
    reader.read();
    let drops = reader.drops(&nets.b, &nets.host);
    let of = |reason: &str| drops.iter().filter(|d| d.0 == reason && !d.1).map(|d| d.2).sum::<u64>();
    assert_eq!(of("SOCKET_RCVBUFF"), full, "{drops:?}");
    assert_eq!(reader.packets(&nets.b).buffer_overflows, full);
    assert_eq!(of("NO_SOCKET"), closed, "{drops:?}");
}

/// Answers to pings by a raw socket, which the kernel drops once that socket has its copy: no losses.
#[test]
fn answers_to_pings_are_no_losses() {
    if !tells() {
        return;
    }
    let nets = Nets::new(false);
    let mut storage = ObjectStorage::default();
    let mut reader = Reader::new(&mut storage, options());
    let mut ping = std::process::Command::new("busybox");
    ping.args(["ping", "-q", "-c", "20", "-i", "0.02", &nets.address_b]);
    let output = nets.a.inside(|| ping.output()).expect("busybox");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(" 20 packets received"), "{said}");
    reader.read();
    for pod in [&nets.a, &nets.b] {
        assert_eq!(reader.drops(pod, &nets.host), [], "{}", pod.name);
    }
}

/// A walk over processes finds who is in a namespace, too.
#[test]
fn a_namespace_is_found_by_its_process() {
    let pod = Netns::new("pod");
    let hierarchy = options().hierarchy;
    let mut storage = ObjectStorage::default();
    let reader = Reader::of(&mut storage, NetworkOptions::Counters(TaskWalkOptions { hierarchy }));
    let key = CgroupKey { hierarchy, id: pod.cgroup.id() };
    let (number, own) = (pod.number(), std::process::id());
    assert!(reader.reading.members.contains(&(number, key)), "{:?}", reader.reading.members);
    let tasks = std::fs::read_dir("/proc").expect("proc").flatten();
    let processes = tasks.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok()).count();
    println!("{} entries of {processes} processes, read by {own}", reader.reading.members.len());
    assert!(reader.reading.namespaces.iter().all(|space| space.counted_only));
}

/// Packets that a full table of connections has no room for are to the kernel what a rule drops: each is told with the sign that
/// conntrack does not have it, and the namespace's counter of them is its own file's. Only in a machine of its own, as there is
/// one limit for all its namespaces.
#[test]
fn what_a_full_table_of_connections_drops_is_told_apart() {
    const LIMIT: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
    if !tells() || !emulated() || !std::path::Path::new(LIMIT).exists() {
        println!("no machine of its own, or no conntrack");
        return;
    }
    let nets = Nets::new(false);
    let _receiver = receiver(&nets.b, 7000);
    nets.host.iptables("-A FORWARD -m conntrack --ctstate INVALID -j ACCEPT");
    nets.host.iptables("-A FORWARD -p udp --dport 7001 -j DROP");
    let before = std::fs::read_to_string(LIMIT).expect("the limit");
    let mut storage = ObjectStorage::default();
    let mut reader = Reader::new(&mut storage, options());
    std::fs::write(LIMIT, "40").expect("a lower limit");
    nets.a.inside(|| {
        let to = |port: u16| format!("{}:{port}", nets.address_b);
        // Each from a port of its own is a connection.
        for _ in 0..200 {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.send_to(b"packet", to(7000)).expect("sent");
        }
    });
    reader.read();
    std::fs::write(LIMIT, before.trim()).expect("as before");
    // A rule's, of a connection that there is room for.
    assert_eq!(send(&nets.a, &format!("{}:7001", nets.address_b), 7), 0);
    let counted = reader.space(&nets.host).conntrack_full;
    reader.read();
    let file =
        std::fs::read_to_string(format!("/proc/{}/net/stat/nf_conntrack", nets.host.pid)).expect("the file");
    let mut lines = file.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let at = lines.next().and_then(|names| names.iter().position(|name| *name == "drop")).expect("drop");
    let drops: u64 = lines.map(|line| u64::from_str_radix(line[at], 16).expect("a number")).sum();
    assert!(drops >= 100, "{file}");
    assert_eq!((counted, reader.space(&nets.host).conntrack_full), (drops, drops));
    let host = nets.host.cookie();
    let of = |untracked: bool| {
        let these = reader.reading.drops.iter().filter(|d| d.namespace == host && d.untracked == untracked);
        these.filter(|d| d.reason.name() == "NETFILTER_DROP").map(|d| d.packets).sum::<u64>()
    };
    println!("{drops} of 200 had no room");
    assert_eq!((of(true), of(false)), (drops, 7), "{:?}", reader.reading.drops);
}

/// What ends without being lost is not counted: sockets that are closed with something in them, TCP that is, and the
/// multicast that each new interface sends.
#[test]
fn what_is_no_loss_is_not_counted() {
    if !tells() {
        return;
    }
    let mut storage = ObjectStorage::default();
    let mut reader = Reader::new(&mut storage, options());
    let nets = Nets::new(false);
    let listener = nets.b.inside(|| TcpListener::bind("0.0.0.0:7001").expect("a socket"));
    let server = std::thread::spawn(move || {
        for stream in listener.incoming().take(50) {
            let mut stream = stream.expect("a connection");
            stream.write_all(&[b'x'; 30_000]).expect("to write");
            // Read to the end by every second client alone.
            let _ = stream.read(&mut [0; 10]);
        }
    });
    nets.a.inside(|| {
        for i in 0..50 {
            let mut stream = TcpStream::connect(format!("{}:7001", nets.address_b)).expect("a connection");
            let mut all = vec![0; 30_000];
            let much = if i % 2 == 0 { all.len() } else { 100 };
            stream.read_exact(&mut all[..much]).expect("to read");
        }
    });
    server.join().expect("the server");
    nets.a.inside(|| {
        for _ in 0..50 {
            let (one, other) = UnixDatagram::pair().expect("a pair");
            one.send(b"unread").expect("to send");
            drop((one, other));
        }
    });
    reader.read();
    for pod in [&nets.a, &nets.b] {
        let drops = reader.drops(pod, &nets.host);
        // Of a connection that ends early a segment may come after its end, and the kernel does drop that: mostly for NO_SOCKET, on a
        // busy machine up to 5 of the 25 for another reason (TCP_FLAGS), or none. What their sockets still had would be hundreds.
        let odd: u64 = drops.iter().filter(|d| d.0 != "NO_SOCKET").map(|d| d.2).sum();
        assert!(odd <= 25, "{}: {drops:?}", pod.name);
        // A client that closes with data unread answers what still comes with a reset: one each, at most a few.
        let counted: u64 = drops.iter().map(|d| d.2).sum();
        assert!(counted <= 75, "{}: {drops:?}", pod.name);
    }
}

/// Connections that end as connections do: either side the first to close, or the client done with asking before the answer comes.
/// Where a socket has nothing more to receive, what still comes to it, acknowledgements and the other's end, is freed with no reason
/// given. It is no loss.
#[test]
fn connections_that_end_lose_nothing() {
    if !tells() {
        return;
    }
    const CONNECTIONS: usize = 900;
    let nets = Nets::new(false);
    let mut storage = ObjectStorage::default();
    let mut reader = Reader::new(&mut storage, options());
    let listener = nets.b.inside(|| TcpListener::bind("0.0.0.0:7001").expect("a socket"));
    let server = std::thread::spawn(move || {
        for (i, stream) in listener.incoming().take(CONNECTIONS).enumerate() {
            let mut stream = stream.expect("a connection");
            if i % 3 == 0 {
                stream.read_to_end(&mut Vec::new()).expect("the question, to its end");
            }
            (0..20).for_each(|_| stream.write_all(&[b'x'; 2_000]).expect("to write"));
            if i % 3 == 1 {
                stream.read_to_end(&mut Vec::new()).expect("the client's end");
            }
        }
    });
    nets.a.inside(|| {
        for i in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(format!("{}:7001", nets.address_b)).expect("a connection");
            if i % 3 == 0 {
                stream.write_all(b"question").expect("to ask");
                stream.shutdown(std::net::Shutdown::Write).expect("to be done");
            }
            stream.read_exact(&mut [0; 40_000]).expect("the answer");
            if i % 3 != 1 {
                assert_eq!(stream.read(&mut [0; 1]).expect("its end"), 0);
            }
        }
    });
    server.join().expect("the server");
    reader.read();
    for pod in [&nets.a, &nets.b] {
        // On a slow machine some is sent again that had come, and finds its connection over: 4 of 60,000 packets in a guest.
        let drops = reader.drops(pod, &nets.host);
        let counted: u64 = drops.iter().map(|d| d.2).sum();
        assert!(counted <= CONNECTIONS as u64 / 100, "{}: {drops:?}", pod.name);
    }
}

/// What a client still sends to a connection that the server closed is answered with a reset, and is no loss.
#[test]
fn data_for_a_closed_connection_is_no_loss() {
    // Before 6.11 the kernel does not say for which socket it was.
    if !tells() || KernelVersion::current().expect("version") < KernelVersion::new(6, 11, 0) {
        return;
    }
    const CONNECTIONS: usize = 100;
    let nets = Nets::new(false);
    let mut storage = ObjectStorage::default();
    let mut reader = Reader::new(&mut storage, options());
    let listener = nets.b.inside(|| TcpListener::bind("0.0.0.0:7001").expect("a socket"));
    let server = std::thread::spawn(move || listener.incoming().take(CONNECTIONS).for_each(drop));
    nets.a.inside(|| {
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(format!("{}:7001", nets.address_b)).expect("a connection");
            assert_eq!(stream.read(&mut [0; 1]).expect("its end"), 0);
            stream.write_all(b"too late").expect("to write");
            // The reset has come.
            until("its end", || stream.write(b"x").is_err().then_some(()));
        }
    });
    server.join().expect("the server");
    reader.read();
    assert_eq!(reader.drops(&nets.b, &nets.host), []);
}

/// Processes on the host's own network are told by their sockets' cgroup, never by the namespace.
#[test]
fn a_process_on_the_hosts_network_is_told_by_its_cgroup() {
    if !tells() {
        return;
    }
    // Sockets have the cgroup of the unified tree, on a hybrid host too.
    let unified = procfs::process::Process::myself().and_then(|me| me.mountinfo()).expect("mounts").0;
    let Some(unified) =
        unified.iter().find(|mount| mount.fs_type == "cgroup2").map(|m| m.mount_point.clone())
    else {
        println!("no v2 tree");
        return;
    };
    let dir = unified.join(format!("kg-test-host-{}", std::process::id()));
    std::fs::create_dir(&dir).expect("a group");
    let id = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&dir).expect("the group"));
    let nets = Nets::new(false);
    nets.host.iptables("-A OUTPUT -p udp --dport 7000 -j DROP");
    let mut storage = ObjectStorage::default();
    let mut reader = Reader::new(&mut storage, options());
    let script = format!(
        "echo $$ > {}/cgroup.procs; for i in 1 2 3 4 5 6 7; do echo x > /dev/udp/{}/7000; done; true",
        dir.display(),
        nets.address_a
    );
    let net = format!("--net=/run/netns/{}", nets.host.name);
    let status = std::process::Command::new("nsenter").args([&net, "bash", "-c", &script]).output();
    assert!(status.expect("nsenter").status.success());
    reader.read();
    let cookie = nets.host.cookie();
    let of_host: Vec<_> = reader.reading.drops.iter().filter(|d| d.namespace == cookie).copied().collect();
    std::fs::remove_dir(&dir).expect("removed");
    let own = Some(CgroupKey { hierarchy: Hierarchy::Unified, id });
    let dropped: Vec<_> = of_host.iter().filter(|d| d.cgroup == own).collect();
    assert_eq!(dropped.len(), 1, "{of_host:?}");
    assert_eq!((dropped[0].packets, dropped[0].out, dropped[0].reason.name()), (7, true, "NETFILTER_DROP"));
    assert_eq!(nets.host.taken("OUTPUT", "DROP"), 7);
}
