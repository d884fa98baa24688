//! Listening on every address of a machine, of whichever families it has.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted; the kernel's own limit may be lower.
const BACKLOG: i32 = 1024;

/// Listens; the listener is non-blocking. `[::]` is every address, IPv4's among them, whatever the system's
/// `bindv6only` says; on a machine without IPv6 it is every address of IPv4.
///
/// # Errors
/// The address cannot be listened on.
pub fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    by(address, Socket::new)
}

/// `socket(2)`.
type Open = fn(Domain, Type, Option<Protocol>) -> io::Result<Socket>;

fn by(address: SocketAddr, open: Open) -> io::Result<TcpListener> {
    match listen(address, open) {
        Err(error) if is_any_v6(address) && lacks_v6(&error) => {
            listen((Ipv4Addr::UNSPECIFIED, address.port()).into(), open)
        }
        result => result,
    }
}

fn is_any_v6(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6) if v6.ip().is_unspecified())
}

/// The kernel was started with `ipv6.disable=1`, or built without it.
fn lacks_v6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT))
}

fn listen(address: SocketAddr, open: Open) -> io::Result<TcpListener> {
    let socket = open(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if is_any_v6(address) {
        socket.set_only_v6(false)?;
    }
    // A port that was just left may be taken again.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, TcpStream};

    use super::*;

    /// Whether this machine has IPv6 at all.
    fn has_v6() -> bool {
        Socket::new(Domain::IPV6, Type::STREAM, None).is_ok()
    }

    #[test]
    fn every_address_is_reached_over_both_families() {
        let listener = tcp((Ipv6Addr::UNSPECIFIED, 0).into()).expect("it listens with or without IPv6");
        let port = listener.local_addr().expect("bound").port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("over IPv4");
        if has_v6() && std::fs::read_to_string("/proc/net/if_inet6").is_ok_and(|all| all.contains(" lo")) {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).expect("over IPv6");
        }
    }

    /// What a kernel started with `ipv6.disable=1` answers.
    #[test]
    fn without_ipv6_every_address_is_every_one_of_ipv4() {
        let open: Open = |domain, kind, protocol| match domain {
            Domain::IPV6 => Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
            _ => Socket::new(domain, kind, protocol),
        };
        let listener = by((Ipv6Addr::UNSPECIFIED, 0).into(), open).expect("it listens");
        let address = listener.local_addr().expect("bound");
        assert!(address.is_ipv4() && address.ip().is_unspecified());
        TcpStream::connect((Ipv4Addr::LOCALHOST, address.port())).expect("over IPv4");
        assert!(by((Ipv6Addr::LOCALHOST, 0).into(), open).is_err(), "one that was asked for by name");
    }

    #[test]
    fn a_taken_port_and_an_address_of_others_are_refused() {
        let taken = tcp((Ipv4Addr::LOCALHOST, 0).into()).expect("a port").local_addr().expect("bound");
        let held = tcp(taken);
        assert!(held.is_ok(), "it was left");
        assert_eq!(tcp(taken).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
        assert!(tcp("192.0.2.1:0".parse().expect("an address")).is_err());
    }
}
