//! The connection to a receiver, and one gRPC call over it: encoded bytes to one method.

use std::error::Error;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use axum::http::uri::PathAndQuery;
use bytes::{BufMut, Bytes};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};
use tonic::{Code, Request, Status};

use super::config::{Proxy, Signal, TlsFiles};
use super::queue::Lane;
use crate::causes::chain;
use crate::sinks::lock;
use crate::token::TokenFile;

/// What a receiver did not accept of a request it took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partial {
    /// Data points, events or spans.
    pub rejected: u64,
    /// Why; also a warning where nothing was rejected.
    pub message: String,
}

/// The connection to a receiver, made when it is first used. Whoever sends over it shares it.
#[derive(Debug)]
pub struct Connection {
    signal: Signal,
    token: Option<TokenFile>,
    channel: Mutex<Option<Channel>>,
}

impl Connection {
    /// Checks the files it will need; connects at the first request.
    fn new(signal: Signal, token_file: Option<&Path>) -> Result<Self, String> {
        let token = token_file.map(|path| TokenFile::open("OTLP", path)).transpose()?;
        let connection = Connection { token, signal, channel: Mutex::new(None) };
        connection.channel()?;
        Ok(connection)
    }

    /// Where it leads, and how.
    pub fn signal(&self) -> &Signal {
        &self.signal
    }

    /// The headers of every request, the token as it is now among them.
    pub fn metadata(&self) -> MetadataMap {
        let metadata = self.signal.headers.0.clone();
        let Some(token) = &self.token else { return metadata };
        let mut headers = metadata.into_headers();
        headers.insert(AUTHORIZATION, token.value());
        MetadataMap::from_headers(headers)
    }

    /// The connection, a new one after [`Connection::lost`]. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// A certificate or key that cannot be used.
    pub fn channel(&self) -> Result<Channel, String> {
        let mut made = lock(&self.channel);
        if let Some(channel) = &*made {
            return Ok(channel.clone());
        }
        let signal = &self.signal;
        let mut endpoint = Endpoint::from(signal.endpoint.clone())
            .connect_timeout(signal.timeout)
            .user_agent(concat!("kernel-gossip/", env!("CARGO_PKG_VERSION")))
            .map_err(|e| chain(&e))?;
        if let Some(files) = &signal.tls {
            endpoint = endpoint.tls_config(tls(files)?).map_err(|e| format!("TLS: {}", chain(&e)))?;
        }
        let channel = match &signal.proxy {
            Some(Proxy(proxy)) => endpoint.connect_with_connector_lazy(through(proxy)),
            None => endpoint.connect_lazy(),
        };
        Ok(made.insert(channel).clone())
    }

    /// It went silent, and would keep every further request waiting: the next one connects again, which also reads
    /// certificates that were renewed.
    pub fn lost(&self) {
        *lock(&self.channel) = None;
    }
}

/// A receiver of one lane's requests.
#[derive(Debug)]
pub struct Receiver {
    lane: Lane,
    connection: Arc<Connection>,
}

impl Receiver {
    /// Checks the files it will need; connects at the first request. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// A certificate, key or token file that cannot be used.
    pub fn new(lane: Lane, signal: Signal, token_file: Option<&Path>) -> Result<Self, String> {
        Ok(Receiver { lane, connection: Arc::new(Connection::new(signal, token_file)?) })
    }

    /// For who else has to send to it.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Sends a request; waits for the answer no longer than the signal's timeout.
    ///
    /// # Errors
    /// The receiver's status; `Unavailable` or `DeadlineExceeded` if there was no answer.
    pub async fn send(&self, body: Bytes) -> Result<Partial, Status> {
        let timeout = self.connection.signal.timeout;
        let answer = tokio::time::timeout(timeout, self.call(body)).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(format!("no answer within {} ms", timeout.as_millis())))
        });
        if let Err(status) = &answer
            && (matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
                || status.source().is_some())
        {
            self.connection.lost();
        }
        answer
    }

    async fn call(&self, body: Bytes) -> Result<Partial, Status> {
        let connection = &self.connection;
        let mut request = Request::new(body);
        *request.metadata_mut() = connection.metadata();
        request.set_timeout(connection.signal.timeout);
        let mut grpc = Grpc::new(connection.channel().map_err(Status::unavailable)?);
        if connection.signal.gzip {
            grpc = grpc.send_compressed(CompressionEncoding::Gzip);
        }
        grpc = grpc.accept_compressed(CompressionEncoding::Gzip);
        grpc.ready().await.map_err(|e| Status::from_error(e.into()))?;
        match self.lane {
            Lane::Metrics => {
                let path = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
                let answer = grpc.unary(request, PathAndQuery::from_static(path), Raw::new()).await?;
                let answer: ExportMetricsServiceResponse = answer.into_inner();
                Ok(answer
                    .partial_success
                    .map_or_else(Partial::default, |p| partial(p.rejected_data_points, p.error_message)))
            }
            Lane::Events => {
                let path = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
                let answer = grpc.unary(request, PathAndQuery::from_static(path), Raw::new()).await?;
                let answer: ExportLogsServiceResponse = answer.into_inner();
                Ok(answer
                    .partial_success
                    .map_or_else(Partial::default, |p| partial(p.rejected_log_records, p.error_message)))
            }
            Lane::Traces => {
                let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
                let answer = grpc.unary(request, PathAndQuery::from_static(path), Raw::new()).await?;
                let answer: ExportTraceServiceResponse = answer.into_inner();
                Ok(answer
                    .partial_success
                    .map_or_else(Partial::default, |p| partial(p.rejected_spans, p.error_message)))
            }
        }
    }
}

/// Connects by way of a proxy's CONNECT, with the user and password of its URL.
fn through(proxy: &Uri) -> Tunnel<HttpConnector> {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    let tunnel = Tunnel::new(proxy.clone(), tcp);
    // The matcher knows how a URL's user and password become a header; any server will do.
    let matcher = Matcher::builder().all(proxy.to_string()).build();
    let auth = matcher.intercept(&Uri::from_static("https://receiver")).and_then(|p| p.basic_auth().cloned());
    match auth {
        Some(auth) => tunnel.with_auth(auth),
        None => tunnel,
    }
}

fn partial(rejected: i64, message: String) -> Partial {
    Partial { rejected: u64::try_from(rejected).unwrap_or(0), message }
}

fn tls(files: &TlsFiles) -> Result<ClientTlsConfig, String> {
    let read = |path: &PathBuf| std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    let certificates = |path: &PathBuf| {
        let pem = read(path)?;
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match all {
            Ok(all) if !all.is_empty() => Ok(pem),
            _ => Err(format!("{}: no certificate in it (PEM)", path.display())),
        }
    };
    let mut config = match &files.ca {
        Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificates(ca)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let Some((certificate, key)) = &files.identity {
        let secret = read(key)?;
        if PrivateKeyDer::from_pem_slice(&secret).is_err() {
            let what = match is_encrypted(&secret) {
                true => {
                    "the private key is encrypted, and there is nobody to ask for the passphrase: decrypt it (openssl pkey)"
                }
                false => "no private key in it (PEM)",
            };
            return Err(format!("{}: {what}", key.display()));
        }
        config = config.identity(Identity::from_pem(certificates(certificate)?, secret));
    }
    Ok(config)
}

/// Either of the ways a key is encrypted in PEM: PKCS#8's, and the older one with its own header (RFC 1421).
fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

/// Sends bytes that are encoded already.
struct Raw<R>(PhantomData<R>);

impl<R> Raw<R> {
    fn new() -> Self {
        Raw(PhantomData)
    }
}

impl<R: Message + Default + 'static> Codec for Raw<R> {
    type Encode = Bytes;
    type Decode = R;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Raw::new()
    }

    fn decoder(&mut self) -> Self {
        Raw::new()
    }
}

impl<R> Encoder for Raw<R> {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl<R: Message + Default> Decoder for Raw<R> {
    type Item = R;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<R>, Status> {
        R::decode(buffer).map(Some).map_err(|e| Status::internal(format!("the answer is no OTLP: {e}")))
    }
}

/// How long the receiver asks to wait (google.rpc.RetryInfo in the status's details).
pub fn retry_after(status: &Status) -> Option<Duration> {
    use tonic_types::StatusExt;
    status.get_details_retry_info()?.retry_delay
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_what_they_are_for_are_refused_at_the_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let made = rcgen::generate_simple_self_signed(["c".to_owned()]).expect("a certificate");
        let (good, key) = (file("good", &made.cert.pem()), file("key", &made.signing_key.serialize_pem()));
        let empty = file("empty", "");
        // The first lines of what `openssl pkcs8 -topk8` and `openssl ec -aes256` write.
        let encrypted = file(
            "encrypted",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIH0MF8=\n-----END ENCRYPTED PRIVATE KEY-----\n",
        );
        let older = file(
            "older",
            "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,3D2B\n\nMIH0\n-----END EC PRIVATE KEY-----\n",
        );
        let no_pem = file("no-pem", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
        let with = |ca: &Path, identity: Option<(&Path, &Path)>| {
            let identity = identity.map(|(c, k)| (c.into(), k.into()));
            tls(&TlsFiles { ca: Some(ca.into()), identity }).map(drop)
        };
        assert_eq!(with(&good, Some((&good, &key))), Ok(()));
        for (ca, identity, wrong) in [
            (&empty, None, "empty: no certificate"),
            (&no_pem, None, "no-pem: no certificate"),
            (&key, None, "key: no certificate"),
            (&good, Some((&*empty, &*key)), "empty: no certificate"),
            (&good, Some((&*good, &*good)), "good: no private key"),
            // prometheus#3678, elasticsearch_exporter#198.
            (&good, Some((&*good, &*encrypted)), "encrypted: the private key is encrypted"),
            (&good, Some((&*good, &*older)), "older: the private key is encrypted"),
        ] {
            let error = with(ca, identity).expect_err("refused");
            assert!(error.contains(wrong), "{error}");
        }
    }
}
