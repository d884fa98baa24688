//! What network namespaces count, against their own files.

use super::*;

/// Numbers of CPUs may be left out, and what the kernel has under one of those is no CPU's: where CPU 0 is said to be none, packets
/// that were sent by way of it are not read, and those by way of CPU 1 are.
#[test]
fn counters_are_read_of_the_cpus_that_there_are_by_number() {
    if !tells() || possible_cpus() < 2 {
        return;
    }
    with_possible_cpus("1", || {
        let space = Netns::new("holes");
        let _receiver = receiver(&space, 7001);
        let mut storage = ObjectStorage::default();
        let mut reader = Reader::new(&mut storage, options());
        let (before, counted) = (reader.packets(&space).packets, space.packets());
        let send = |cpu, packets| {
            space.inside(|| {
                pin(cpu).expect("pinned");
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
                for _ in 0..packets {
                    socket.send_to(b"packet", "127.0.0.1:7001").expect("sent");
                }
            });
        };
        send(0, 100);
        send(1, 30);
        reader.read();
        // Each is sent and received.
        assert_eq!(reader.packets(&space).packets - before, 2 * 30);
        assert_eq!(space.packets() - counted, 2 * 130, "the kernel's count");
    });
}

/// What the pod's own files say it received and sent is what is read, to the packet.
#[test]
fn packets_are_those_of_the_namespaces_own_files() {
    if !tells() {
        return;
    }
    let nets = Nets::new(false);
    let _receiver = receiver(&nets.b, 7000);
    let mut storage = ObjectStorage::default();
    let mut reader = Reader::new(&mut storage, options());
    send(&nets.a, &format!("{}:7000", nets.address_b), PACKETS);
    for pod in [&nets.a, &nets.b, &nets.host] {
        let read = until("a moment without packets", || {
            let before = pod.packets();
            reader.read();
            let after = pod.packets();
            (before == after).then_some((reader.packets(pod).packets, after))
        });
        assert_eq!(read.0, read.1, "{}", pod.name);
        assert!(read.1 >= u64::from(PACKETS));
    }
}

/// A listening queue of one, and nobody who accepts; connections to it from a pod. Each that it refused is counted once, as in
/// the namespace's own file.
#[test]
fn refused_connections_and_datagrams_are_those_of_the_namespaces_own_file() {
    ways().into_iter().for_each(refused);
}

fn refused(way: NetworkOptions) {
    let nets = Nets::new(false);
    let mut storage = ObjectStorage::default();
    let mut reader = Reader::of(&mut storage, way);
    let listener = nets.b.inside(|| {
        let listener = TcpListener::bind("0.0.0.0:7001").expect("a socket");
        // SAFETY: a descriptor that is open; takes no pointer.
        assert_eq!(unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&listener), 1) }, 0);
        listener
    });
    nets.a.inside(|| {
        let to = format!("{}:7001", nets.address_b).parse().expect("an address");
        for _ in 0..8 {
            let _ = TcpStream::connect_timeout(&to, Duration::from_millis(200));
        }
    });
    let small = fill_a_small_buffer(&nets);
    // Nobody sends again from here on.
    nets.a.ip("link set eth0 down");
    let (counted, tcp) = settled(&mut reader, &nets.b);
    drop((listener, small));
    let file = |name: &str| nets.b.counter("TcpExt", name);
    assert!(counted.listen_overflows >= 5, "{counted:?}");
    assert_eq!(counted.listen_overflows, file("ListenOverflows"));
    assert_eq!(counted.listen_overflows + counted.listen_refusals, file("ListenDrops"));
    let full = nets.b.counter("Udp", "RcvbufErrors");
    assert!(full > 0);
    assert_eq!(counted.buffer_overflows, full);
    println!("{} refused, {full} without room, {tcp:?}", counted.listen_overflows);
}

/// A reading of a moment in which nothing was counted, so that files read later say the same.
fn settled(reader: &mut Reader<'_>, of: &Netns) -> (PacketCounters, TcpCounters) {
    let counters = until("a moment without packets", || {
        let before = tcp_of_files(of);
        reader.read();
        let counters = reader.packets(of);
        (before == tcp_of_files(of)).then_some(counters)
    });
    (counters, counters.tcp)
}

/// The same numbers in /proc/PID/net/snmp and netstat.
fn tcp_of_files(of: &Netns) -> TcpCounters {
    let (tcp, ext) = (|name: &str| of.counter("Tcp", name), |name: &str| of.counter("TcpExt", name));
    TcpCounters {
        sent: tcp("OutSegs"),
        retransmitted: tcp("RetransSegs"),
        timeouts: ext("TCPTimeouts"),
        fast: ext("TCPFastRetrans"),
        slow_start: ext("TCPSlowStartRetrans"),
        tail_losses: ext("TCPLossProbeRecovery"),
        lost_again: ext("TCPLostRetransmit"),
        syn: ext("TCPSynRetrans"),
        resets_sent: tcp("OutRsts"),
        reset: tcp("EstabResets"),
        failed: tcp("AttemptFails"),
    }
}

/// Transfers from one pod to the other: some that lose one segment in twenty on the host, connections that nobody answers or
/// that are refused, and such as end with a reset. All that is counted is what the namespaces' own files have.
#[test]
fn segments_sent_again_are_those_of_the_namespaces_own_files() {
    ways().into_iter().for_each(segments_sent_again);
}

fn segments_sent_again(way: NetworkOptions) {
    let nets = Nets::new(false);
    let mut storage = ObjectStorage::default();
    let mut reader = Reader::of(&mut storage, way);
    let listener = nets.b.inside(|| TcpListener::bind("0.0.0.0:7001").expect("a socket"));
    let server = std::thread::spawn(move || {
        for stream in listener.incoming().take(4) {
            let _ = std::io::copy(&mut stream.expect("a connection"), &mut std::io::sink());
        }
    });
    nets.host
        .iptables("-A FORWARD -p tcp --dport 7001 -m statistic --mode nth --every 20 --packet 9 -j DROP");
    nets.host.iptables("-A FORWARD -p tcp --dport 7002 -j DROP");
    nets.a.inside(|| {
        let at = |port: u16| format!("{}:{port}", nets.address_b).parse().expect("an address");
        for i in 0..4 {
            let mut stream =
                TcpStream::connect_timeout(&at(7001), Duration::from_secs(60)).expect("connected");
            for _ in 0..if i == 3 { 1 } else { 64 } {
                stream.write_all(&[b'x'; 4096]).expect("to write");
            }
        }
        let wait = Duration::from_millis(1500);
        assert!(TcpStream::connect_timeout(&at(7002), wait).is_err(), "nobody answers");
        assert!(TcpStream::connect(at(7003)).is_err(), "nobody listens");
    });
    server.join().expect("the server");
    // A connection that ends with something unread is reset.
    let listener = nets.b.inside(|| TcpListener::bind("0.0.0.0:7004").expect("a socket"));
    nets.a.inside(|| {
        let mut stream = TcpStream::connect(format!("{}:7004", nets.address_b)).expect("connected");
        stream.write_all(b"unread").expect("to write");
        let (other, _) = listener.accept().expect("accepted");
        std::thread::sleep(Duration::from_millis(50));
        drop(other);
        let _ = stream.read(&mut [0; 1]);
    });
    for pod in [&nets.a, &nets.b] {
        let (_, tcp) = settled(&mut reader, pod);
        println!("{}: {tcp:?}", pod.name);
        assert_eq!(tcp, tcp_of_files(pod), "{}", pod.name);
    }
    let (a, b) = (reader.packets(&nets.a).tcp, reader.packets(&nets.b).tcp);
    assert!(a.retransmitted >= 5 && a.syn >= 1 && a.timeouts >= 1 && a.failed >= 1, "{a:?}");
    assert!(a.reset >= 1 && b.resets_sent >= 2, "{a:?} {b:?}");
}

/// What the pod's interfaces say of drops themselves is what is read, on the way out and in: here its cable's other end, then
/// its own, takes smaller packets than come.
#[test]
fn interfaces_counters_are_those_of_the_namespaces_own_file() {
    if !tells() {
        return;
    }
    let nets = Nets::new(false);
    let mut storage = ObjectStorage::default();
    let mut reader = Reader::new(&mut storage, options());
    let dropped = |reader: &mut Reader<'_>| {
        reader.read();
        reader.packets(&nets.a).interface_dropped.expect("a cable alone")
    };
    assert_eq!(dropped(&mut reader), nets.a.interface_drops());
    let large = |from: &Netns, to: &str, packets: usize| {
        from.inside(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            (0..packets).for_each(|_| drop(socket.send_to(&[b'x'; 1200], to)));
        });
    };
    nets.host.ip("link set h1 mtu 600");
    large(&nets.a, &format!("{}:7000", nets.address_b), 70);
    let out = dropped(&mut reader);
    assert_eq!(out, nets.a.interface_drops());
    nets.host.ip("link set h1 mtu 1500");
    nets.a.ip("link set eth0 mtu 600");
    large(&nets.host, &format!("{}:7000", nets.address_a), 30);
    let both = dropped(&mut reader);
    assert_eq!(both, nets.a.interface_drops());
    assert_eq!((out, both - out), (70, 30));
    // The host's has other interfaces than two cables at most.
    nets.host.ip("link add other type bridge");
    nets.host.ip("link set other up");
    reader.read();
    assert_eq!(reader.packets(&nets.host).interface_dropped, None);
}
