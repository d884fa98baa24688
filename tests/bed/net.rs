//! Network namespaces of a test's own, joined by cables: what the kernel's own counters and iptables say about them is
//! what the tests compare with.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use super::cgroup::Cgroup;

/// A network namespace with a process in it, which has a cgroup of its own. Dropping it ends both.
pub struct Netns {
    pub name: String,
    pub cgroup: Cgroup,
    pub pid: u32,
    sleeper: Child,
}

/// Runs a program, which must succeed; its output.
pub fn run(program: &str, args: &str) -> String {
    let output = Command::new(program).args(args.split_whitespace()).output().expect(program);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&output.stderr));
    text
}

impl Netns {
    /// A namespace with its loopback up, and a process that sleeps in it in a cgroup of its own.
    pub fn new(name: &str) -> Netns {
        Netns::within(name, Cgroup::new(name))
    }

    /// The same with the process in this cgroup.
    pub fn within(name: &str, cgroup: Cgroup) -> Netns {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("kg{}-{number}-{name}", std::process::id());
        run("ip", &format!("netns add {name}"));
        run("ip", &format!("-n {name} link set lo up"));
        let mut command = Command::new("nsenter");
        command.args([&format!("--net=/run/netns/{name}"), "sleep", "1000"]);
        let sleeper = cgroup.spawn(&mut command, None);
        let pid = sleeper.id();
        // nsenter becomes the sleeper once it is there.
        super::until("the process in its namespace", || {
            let text = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            (text.trim() == "sleep").then_some(())
        });
        Netns { name, cgroup, pid, sleeper }
    }

    pub fn ip(&self, args: &str) {
        run("ip", &format!("-n {} {args}", self.name));
    }

    /// iptables within it; what it prints.
    pub fn iptables(&self, args: &str) -> String {
        run("nsenter", &format!("--net=/run/netns/{} iptables {args}", self.name))
    }

    /// Packets that the rules with this target in a chain took.
    pub fn taken(&self, chain: &str, target: &str) -> u64 {
        let text = self.iptables(&format!("-nvxL {chain}"));
        let rules = text.lines().filter(|line| line.split_whitespace().nth(2) == Some(target));
        rules
            .map(|line| line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).expect("packets"))
            .sum()
    }

    /// Does something on a thread in this namespace.
    pub fn inside<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(format!("/run/netns/{}", self.name)).expect("the namespace");
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                // SAFETY: takes a descriptor that is open; this thread alone changes its namespace.
                let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(result, 0, "{}", io::Error::last_os_error());
                what()
            });
            thread.join().expect("the thread")
        })
    }

    /// Its inode's number, which is given again to another once it is gone.
    pub fn number(&self) -> u64 {
        let net = std::fs::metadata(format!("/proc/{}/ns/net", self.pid)).expect("the namespace");
        std::os::unix::fs::MetadataExt::ino(&net)
    }

    /// What the kernel calls it (5.14).
    pub fn cookie(&self) -> u64 {
        self.inside(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            let (mut cookie, mut length) = (0u64, 8 as libc::socklen_t);
            // SAFETY: room for the eight bytes that it may write.
            let result = unsafe {
                libc::getsockopt(
                    socket.as_fd().as_raw_fd(),
                    libc::SOL_SOCKET,
                    71, // SO_NETNS_COOKIE
                    (&raw mut cookie).cast(),
                    &raw mut length,
                )
            };
            assert_eq!(result, 0, "{}", io::Error::last_os_error());
            cookie
        })
    }

    /// A number of /proc/net/snmp or netstat: `Ip`, `InReceives`.
    pub fn counter(&self, group: &str, name: &str) -> u64 {
        let file =
            |file: &str| std::fs::read_to_string(format!("/proc/{}/net/{file}", self.pid)).expect(file);
        let text = file("snmp") + &file("netstat");
        let mut lines = text.lines().filter(|line| line.split(':').next() == Some(group));
        let names = lines.next().expect("names").split_whitespace();
        let values = lines.next().expect("values").split_whitespace();
        let found = names.zip(values).find(|(known, _)| *known == name);
        found.and_then(|(_, value)| value.parse().ok()).unwrap_or_else(|| panic!("no {group} {name}"))
    }

    /// A number of /proc/net/snmp6.
    pub fn counter6(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/net/snmp6", self.pid)).unwrap_or_default();
        let mut found = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
        found.find(|(known, _)| *known == name).and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
    }

    /// IP packets that it received and sent, by its own files.
    pub fn packets(&self) -> u64 {
        self.counter("Ip", "InReceives")
            + self.counter("Ip", "OutRequests")
            + self.counter6("Ip6InReceives")
            + self.counter6("Ip6OutRequests")
    }

    /// Errors and drops of its interfaces: what cAdvisor tells of a pod.
    pub fn interface_drops(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/net/dev", self.pid)).expect("dev");
        let of_line = |line: &str| -> u64 {
            let Some((_, numbers)) = line.split_once(':') else { return 0 };
            let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|n| n.parse().ok()).collect();
            numbers[2] + numbers[3] + numbers[10] + numbers[11]
        };
        text.lines().map(of_line).sum()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = self.sleeper.kill();
        let _ = self.sleeper.wait();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// Two pods and the machine between them, which routes.
pub struct Nets {
    pub a: Netns,
    pub b: Netns,
    pub host: Netns,
    /// Addresses of the pods: no two tests on a machine have the same, since by them a packet behind a bridge is told.
    pub address_a: String,
    pub address_b: String,
    /// In the host's namespace, too: it is nobody's alone.
    _another: Another,
}

/// A process of another cgroup.
struct Another(Child, #[expect(dead_code, reason = "ends with it")] Cgroup);

impl Drop for Another {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Nets {
    /// `bridged`: the host's ends of the cables are ports of a bridge each, as container network plugins make it.
    pub fn new(bridged: bool) -> Nets {
        Nets::of(bridged, Cgroup::new("a"), Cgroup::new("b"))
    }

    /// The same with the pods' processes in these cgroups.
    pub fn of(bridged: bool, a: Cgroup, b: Cgroup) -> Nets {
        let (a, b) = (Netns::within("a", a), Netns::within("b", b));
        let (host, cgroup) = (Netns::new("host"), Cgroup::new("another"));
        let mut command = Command::new("nsenter");
        command.args([&format!("--net=/run/netns/{}", host.name), "sleep", "1000"]);
        let another = Another(cgroup.spawn(&mut command, None), cgroup);
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = std::process::id() * 16 + MADE.fetch_add(1, Ordering::Relaxed) % 16;
        let net = |i: u32| format!("10.{}.{}", 100 + number / 64 % 150, number % 64 * 4 + i);
        let (address_a, address_b) = (net(1) + ".2", net(2) + ".2");
        let nets = Nets { a, b, host, address_a, address_b, _another: another };
        for (i, pod) in [(1, &nets.a), (2, &nets.b)] {
            let host = &nets.host;
            run(
                "ip",
                &format!("link add eth0 netns {} type veth peer name h{i} netns {}", pod.name, host.name),
            );
            pod.ip(&format!("addr add {}.2/24 dev eth0", net(i)));
            pod.ip("link set eth0 up");
            let port = match bridged {
                true => {
                    host.ip(&format!("link add br{i} type bridge"));
                    host.ip(&format!("link set h{i} master br{i}"));
                    host.ip(&format!("link set br{i} up"));
                    format!("br{i}")
                }
                false => format!("h{i}"),
            };
            host.ip(&format!("addr add {}.1/24 dev {port}", net(i)));
            host.ip(&format!("link set h{i} up"));
            pod.ip(&format!("route add default via {}.1", net(i)));
        }
        nets.host.inside(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("forwarding"));
        nets
    }
}

/// Sends so many packets to this address; those that the kernel refused to send.
pub fn send(from: &Netns, to: &str, packets: u32) -> u32 {
    from.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.connect(to).expect("a route");
        let mut refused = 0;
        for i in 0..packets {
            refused += u32::from(socket.send(b"packet").is_err());
            if i % 100 == 99 {
                // A receiver on a slow machine is to keep up.
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        refused
    })
}
