//! What went wrong on the way to a receiver, and what to do about it: for the log's one line of an outage, and for
//! `kernel-gossip check`.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage};
use tonic::{Code, Status};

/// What a receiver says of a client's certificate, or of none.
const ALERTS: [AlertDescription; 4] = [
    AlertDescription::CertificateRequired,
    AlertDescription::BadCertificate,
    AlertDescription::UnknownCA,
    AlertDescription::CertificateUnknown,
];

/// What the libraries say of a connection that the other end closed, by the moment they were in.
const CLOSED: [&str; 3] = ["broken pipe", "connection reset", "operation was canceled: connection closed"];

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The host's name does not resolve.
    UnknownName,
    /// Nobody listens at the port.
    Refused,
    /// It was reached and does not answer, or nothing on the way does.
    Silent,
    /// It speaks no TLS.
    NoTls,
    /// It speaks TLS, and was spoken to without.
    WantsTls,
    /// It speaks HTTP, but not gRPC.
    Http,
    /// It speaks either HTTP/1 or TLS; which of the two only looking tells.
    NoGrpc,
    /// The certificate is for another name.
    OtherName,
    /// The certificate is of no authority that is trusted.
    Untrusted,
    /// The certificate is an authority's own.
    Authority,
    /// The certificate is no longer valid, or not yet.
    OutOfDate,
    /// It asks for this client's certificate, or does not like it.
    ClientCertificate,
    /// It does not know who asks.
    Unauthenticated,
    /// It knows who asks, and does not allow it.
    Forbidden,
    /// It has no such service: it does not take this kind of data.
    NotTaken,
    /// It was connected to, and closes the connection without a word.
    Closed,
    /// The proxy on the way does not let it through.
    Proxy,
    /// The proxy on the way is not reached itself.
    NoProxy,
    /// Anything else.
    Other,
}

impl Fault {
    /// What a failed request says.
    pub fn of(status: &Status) -> Fault {
        // The words are hyper-util's: its error has no type. What it has as its cause is about the proxy.
        let text = super::sender::text(status);
        if text.contains("tunnel error: failed to create underlying connection") {
            return Fault::NoProxy;
        }
        let mut cause = status.source();
        while let Some(error) = cause {
            if let Some(fault) = typed(error) {
                return fault;
            }
            cause = error.source();
        }
        // What has no type that others could ask for.
        let has = |part: &str| text.contains(part);
        match status.code() {
            _ if has("InvalidContentType") => Fault::NoTls,
            _ if has("frame with invalid size") => Fault::NoGrpc,
            _ if has("HTTP/2 was not negotiated") => Fault::Http,
            _ if has("dns error") => Fault::UnknownName,
            _ if has("tunnel error") => Fault::Proxy,
            // In TLS 1.3 it comes after the handshake, and within HTTP/2's error that has no cause.
            _ if ALERTS.iter().any(|alert| has(&format!("received fatal alert: {alert:?}"))) => {
                Fault::ClientCertificate
            }
            // The same, where the alert was not read before the end of the connection was seen.
            _ if CLOSED.iter().any(|words| has(words)) => Fault::Closed,
            Code::Unimplemented if has("mapped from HTTP status code") => Fault::Http,
            Code::Unauthenticated => Fault::Unauthenticated,
            Code::PermissionDenied => Fault::Forbidden,
            Code::Unimplemented => Fault::NotTaken,
            Code::DeadlineExceeded => Fault::Silent,
            _ if has("Timeout expired") => Fault::Silent,
            _ => Fault::Other,
        }
    }

    /// What to do about it; `None`: what was said is all there is.
    pub fn what_to_do(self) -> Option<&'static str> {
        Some(match self {
            Fault::UnknownName => "check the host's name, and that this machine's or pod's DNS knows it",
            Fault::Refused => {
                "nobody listens there: start the receiver, or check the host and the port (gRPC's is 4317)"
            }
            Fault::Silent => {
                "check the host and the port, and what a firewall or a NetworkPolicy lets through"
            }
            Fault::NoTls => "it speaks no TLS: write http://, or --otlp-insecure",
            Fault::WantsTls => "it speaks TLS: write https://",
            Fault::Http => "it speaks HTTP, not gRPC: is this its HTTP port (4318; gRPC's is 4317)?",
            Fault::NoGrpc => {
                "it speaks no gRPC without TLS: is this its HTTP port (4318; gRPC's is 4317), or does it want https://?"
            }
            Fault::OtherName => {
                "its certificate is for another name: use a name that is in the certificate as the endpoint's host"
            }
            Fault::Untrusted => {
                "its certificate is of an authority that is not trusted here: name the CA that signed it (not the \
                 certificate itself) by --otlp-certificate"
            }
            Fault::Authority => {
                "its certificate is a CA's own (basicConstraints CA:TRUE, as openssl req -x509 makes them), which is no \
                 server's: give it one with CA:FALSE, or one that this CA signed"
            }
            Fault::OutOfDate => "its certificate is not valid now: renew it, or set the clocks",
            Fault::ClientCertificate => {
                "it wants another client certificate: --otlp-client-certificate and --otlp-client-key"
            }
            Fault::Unauthenticated => "it does not know who asks: check --otlp-token-file or --otlp-header",
            Fault::Forbidden => "it does not allow this: check what the token or the headers may do",
            Fault::NotTaken => {
                "it has no service for this kind of data: give it a pipeline for it, or send it elsewhere"
            }
            Fault::Closed => {
                "it closes the connection: does it want a client certificate (--otlp-client-certificate), or is it about to end?"
            }
            Fault::Proxy => {
                "the proxy (HTTPS_PROXY) does not let it through: except the host by NO_PROXY, or allow it there"
            }
            Fault::NoProxy => {
                "the proxy (HTTPS_PROXY) is not reached: check its host and port, or except the receiver by NO_PROXY"
            }
            Fault::Other => return None,
        })
    }
}

/// What an error of a chain says by its type.
fn typed(error: &(dyn Error + 'static)) -> Option<Fault> {
    let io = error.downcast_ref::<io::Error>();
    // What an I/O error wraps is not its source, but that one's source is.
    let inner = io.and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(fault) = inner.or_else(|| error.downcast_ref()).and_then(tls) {
        return Some(fault);
    }
    match io?.kind() {
        io::ErrorKind::ConnectionRefused => Some(Fault::Refused),
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Some(Fault::Silent)
        }
        _ => None,
    }
}

fn tls(error: &rustls::Error) -> Option<Fault> {
    use rustls::Error as E;
    Some(match error {
        E::InvalidMessage(InvalidMessage::InvalidContentType) => Fault::NoTls,
        E::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Fault::OtherName,
        E::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => Fault::OutOfDate,
        // The verifier's own error, which rustls has no name for.
        E::InvalidCertificate(CertificateError::Other(other)) if other.to_string() == "CaUsedAsEndEntity" => {
            Fault::Authority
        }
        E::InvalidCertificate(_) => Fault::Untrusted,
        E::NoApplicationProtocol | E::AlertReceived(AlertDescription::NoApplicationProtocol) => Fault::Http,
        E::AlertReceived(alert) if ALERTS.contains(alert) => Fault::ClientCertificate,
        _ => return None,
    })
}
