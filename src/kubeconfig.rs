//! The way to the API server, found as kubectl finds it: agent, `check`, `birth` and reconciler ask here, and nowhere
//! else.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{Request, Uri};
use kube::client::{Body, ClientBuilder};
use kube::config::{AuthInfo, ExecAuthCluster, Kubeconfig};
use kube::{Client, Config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tower::util::MapRequestLayer;

use crate::causes::chain;
use crate::proxy;
use crate::token::TokenFile;

/// Where the way to the API server is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The one named, `$KUBECONFIG` or `~/.kube/config`.
    Kubeconfig,
    /// The service account of the pod this runs in.
    ServiceAccount,
}

/// Why there is no way to an API server.
#[derive(Debug, Error)]
pub enum Unusable {
    /// Nothing says where one is.
    #[error("no Kubernetes here: no kubeconfig and no service account")]
    NoCluster,
    #[error("kubeconfig {}: {reason}", .path.display())]
    Kubeconfig { path: PathBuf, reason: String },
    #[error("the pod's service account: {0}")]
    ServiceAccount(String),
}

/// The kubeconfig given, else the files of `$KUBECONFIG` that are there, else `~/.kube/config`, else the pod's service
/// account. Sends nothing.
///
/// # Errors
/// [`Unusable`].
pub async fn find(given: Option<&Path>) -> Result<(Source, Config), Unusable> {
    let told = env::var_os("KUBECONFIG").unwrap_or_default();
    let named: Vec<PathBuf> = match given {
        Some(path) => vec![path.into()],
        // A file that is not there is passed over.
        None => {
            env::split_paths(&told).filter(|path| !path.as_os_str().is_empty() && path.exists()).collect()
        }
    };
    let home = || env::home_dir().map(|home| home.join(".kube/config")).filter(|path| path.exists());
    let (paths, at_home) = match named.is_empty() && told.is_empty() {
        true => (Vec::from_iter(home()), true),
        false => (named, false),
    };
    if !paths.is_empty() {
        let name = env::join_paths(&paths).unwrap_or_default().into();
        match read(&paths) {
            Ok(config) => return Ok((Source::Kubeconfig, config)),
            // Nobody asked for this one, and in a pod there is another way.
            Err(_) if at_home && in_pod() => {}
            Err(reason) => return Err(Unusable::Kubeconfig { path: name, reason }),
        }
    }
    match Config::incluster() {
        Ok(config) => Ok((Source::ServiceAccount, config)),
        Err(error) if in_pod() => Err(Unusable::ServiceAccount(one_line(&error))),
        Err(_) if !told.is_empty() => {
            Err(Unusable::Kubeconfig { path: told.into(), reason: "there is no such file".into() })
        }
        Err(_) => Err(Unusable::NoCluster),
    }
}

/// A client by this configuration. Sends nothing yet, but may run a plugin that the kubeconfig names.
///
/// # Errors
/// One line that says why there is none, and of a plugin that cannot be run which it is and where to get it.
pub fn client(mut config: Config) -> Result<Client, String> {
    let token = token_file(&mut config.auth_info)?;
    let exec = config.auth_info.exec.clone();
    let built = ClientBuilder::try_from(config).map_err(|error| {
        let auth = matches!(error, kube::Error::Auth(_));
        let mut text = one_line(&error);
        if let Some(exec) = exec.filter(|_| auth) {
            let command = exec.command.unwrap_or_default();
            text = format!("the kubeconfig's plugin {command:?} gives no credentials: {text}");
            if let Some(hint) = exec.install_hint {
                let hint: Vec<&str> = hint.split_whitespace().collect();
                text = format!("{text} ({})", hint.join(" "));
            }
        }
        text
    })?;
    let Some(token) = token else { return Ok(built.build()) };
    let token = Arc::new(token);
    let authorized = MapRequestLayer::new(move |mut request: Request<Body>| {
        request.headers_mut().insert(AUTHORIZATION, token.value());
        request
    });
    Ok(built.with_layer(&authorized).build())
}

/// Takes out the file of a token, where that is what proves who asks. The library sends what is in it to the letter, and nothing
/// at all if an editor, or whoever made the Secret, has ended its line; kubectl takes the space around it away.
fn token_file(auth: &mut AuthInfo) -> Result<Option<TokenFile>, String> {
    // The library's order.
    let another = auth.auth_provider.is_some()
        || auth.username.is_some() && auth.password.is_some()
        || auth.token.is_some();
    match auth.token_file.as_ref().filter(|_| !another) {
        Some(path) => {
            let token = TokenFile::open("Kubernetes", Path::new(path))?;
            (auth.token_file, auth.exec) = (None, None);
            Ok(Some(token))
        }
        None => Ok(None),
    }
}

fn in_pod() -> bool {
    env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

fn read(paths: &[PathBuf]) -> Result<Config, String> {
    let merged = paths
        .iter()
        .try_fold(Kubeconfig::default(), |all, path| {
            Kubeconfig::read_from(path).and_then(|one| all.merge(one))
        })
        .map_err(|e| one_line(&e))?;
    config(merged, &|name| env::var(name).ok())
}

/// The way to the cluster of the current context. The library has its own, which takes what the environment says of proxies
/// otherwise than kubectl: it asks `NO_PROXY` about the proxy instead of the server, for a `proxy-url` too, and refuses all of
/// the kubeconfig for an empty entry in it (kube 5.0.0, `config/no_proxy.rs`).
fn config(all: Kubeconfig, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, String> {
    let current = all.current_context.filter(|name| !name.is_empty()).ok_or("it has no current-context")?;
    let context = all.contexts.into_iter().find(|c| c.name == current).and_then(|c| c.context);
    let context = context.ok_or_else(|| format!("it has no context {current:?}, the current one"))?;
    let cluster = all.clusters.into_iter().find(|c| c.name == context.cluster).and_then(|c| c.cluster);
    let mut cluster = cluster.ok_or_else(|| format!("it has no cluster {:?}", context.cluster))?;
    cluster.certificate_authority_data = cluster.certificate_authority_data.as_deref().map(base64);
    let server = cluster.server.as_deref().unwrap_or_default();
    let url = server.parse().ok().filter(|url: &Uri| url.host().is_some_and(|host| !host.is_empty()));
    let url = url.ok_or_else(|| format!("the cluster's server {server:?} is no URL"))?;
    // Reads its certificates.
    let told = ExecAuthCluster::try_from(&cluster).map_err(|e| one_line(&e))?;
    let mut config = Config::new(url);
    config.default_namespace = context.namespace.unwrap_or_else(|| config.default_namespace.clone());
    config.accept_invalid_certs = cluster.insecure_skip_tls_verify.unwrap_or(false);
    config.disable_compression = cluster.disable_compression.unwrap_or(false);
    if let Some(pem) = &told.certificate_authority_data {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let all = all.map_err(|e| format!("the cluster's certificate authority: {}", one_line(&e)))?;
        config.root_cert = Some(all.iter().map(|one| one.to_vec()).collect());
    }
    let own = cluster.proxy_url.as_deref().map(str::trim).filter(|url| !url.is_empty());
    config.proxy_url = match own {
        Some(url) => Some(url.parse().map_err(|_| "the cluster's proxy-url is no URL".to_owned())?),
        None => proxy::of(&config.cluster_url, env)?,
    };
    config.proxy_url = config.proxy_url.map(by_name);
    config.tls_server_name = cluster.tls_server_name;
    let user = context.user.unwrap_or_default();
    // As kubectl: a user that is not there has no credentials.
    let user = all.auth_infos.into_iter().find(|u| u.name == user).and_then(|u| u.auth_info);
    config.auth_info = user.unwrap_or_default();
    let auth = &mut config.auth_info;
    auth.client_certificate_data = auth.client_certificate_data.as_deref().map(base64);
    auth.client_key_data = auth.client_key_data.as_ref().map(|key| base64(key.expose_secret()).into());
    if let Some(exec) = config.auth_info.exec.as_mut().filter(|exec| exec.provide_cluster_info) {
        exec.cluster = Some(told);
    }
    Ok(config)
}

/// Base64 without the ends of lines and the space around it, which Go's decoder passes over (a block of YAML, `base64` without
/// `-w0`) and the library's does not.
fn base64(text: &str) -> String {
    text.split_ascii_whitespace().collect()
}

/// socks5h is socks5 where the proxy looks names up, and that is what the library does.
fn by_name(proxy: Uri) -> Uri {
    let mut parts = proxy.clone().into_parts();
    match parts.scheme.as_ref().map(|scheme| scheme.as_str()) {
        Some("socks5h") => {
            parts.scheme = "socks5".parse().ok();
            Uri::from_parts(parts).unwrap_or(proxy)
        }
        _ => proxy,
    }
}

/// An error with its causes, on one line.
fn one_line(error: &dyn std::error::Error) -> String {
    chain(error).replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The way by this cluster's further fields and these variables.
    fn way(fields: &str, set: &[(&str, &str)]) -> Result<Config, String> {
        let text = format!(
            "{{current-context: c, clusters: [{{name: k, cluster: {{server: 'https://kube.example:6443'{fields}}}}}], \
             contexts: [{{name: c, context: {{cluster: k, user: nobody}}}}]}}"
        );
        let all = Kubeconfig::from_yaml(&text).expect("a kubeconfig");
        config(all, &|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    fn proxy(fields: &str, set: &[(&str, &str)]) -> Option<String> {
        way(fields, set).expect("a way").proxy_url.map(|url| url.to_string())
    }

    /// kubectl#1653, kubectl#1655, kind#689.
    #[test]
    fn a_proxy_is_that_of_the_file_or_the_environment() {
        let own = ", proxy-url: 'http://127.0.0.1:3128'";
        let except = [("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", "localhost,127.0.0.1,kube.example,")];
        assert_eq!(
            proxy(own, &except).as_deref(),
            Some("http://127.0.0.1:3128/"),
            "of the file, without exceptions"
        );
        assert_eq!(proxy("", &except), None);
        assert_eq!(proxy(", proxy-url: ''", &except[..1]).as_deref(), Some("http://p:1/"));
        // An exception that is about the proxy is none for the server, and what is no list excepts nothing.
        for list in ["p", "p:1", "localhost,,", "10.0.0.0/99", "::1 ::2"] {
            let set = [except[0], ("NO_PROXY", list)];
            assert_eq!(proxy("", &set).as_deref(), Some("http://p:1/"), "{list}");
        }
        assert_eq!(proxy("", &[("HTTPS_PROXY", "socks5h://p:1")]).as_deref(), Some("socks5://p:1/"));
        assert_eq!(
            proxy("", &[("HTTPS_PROXY", "http://a b"), ("NO_PROXY", "*")]),
            None,
            "not used, so not refused"
        );
        assert!(way("", &[("HTTPS_PROXY", "http://a b")]).is_err());
        assert!(way(", proxy-url: 'http://a b'", &[]).is_err());
    }

    #[test]
    fn a_cluster_is_taken_with_all_that_it_says() {
        let made = rcgen::generate_simple_self_signed(["c".to_owned()]).expect("a certificate");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), made.cert.pem()).expect("written");
        let fields = format!(
            ", tls-server-name: other.example, insecure-skip-tls-verify: true, certificate-authority: '{}'",
            file.path().display()
        );
        let config = way(&fields, &[]).expect("a way");
        assert_eq!(config.cluster_url, "https://kube.example:6443/");
        assert_eq!(config.tls_server_name.as_deref(), Some("other.example"));
        assert!(config.accept_invalid_certs);
        assert_eq!(config.root_cert, Some(vec![made.cert.der().to_vec()]));
        assert_eq!(config.default_namespace, "default");
        assert!(way(", certificate-authority: /none", &[]).is_err_and(|e| e.contains("/none")));
        for (text, wrong) in [
            ("{}", "no current-context"),
            ("{current-context: c}", "no context \"c\""),
            ("{current-context: c, contexts: [{name: c, context: {cluster: k}}]}", "no cluster \"k\""),
            (
                "{current-context: c, contexts: [{name: c, context: {cluster: k}}], clusters: [{name: k, cluster: {server: ':'}}]}",
                "server \":\" is no URL",
            ),
        ] {
            let error = config_of(text).expect_err("refused");
            assert!(error.contains(wrong), "{error}");
        }
    }

    /// kr8s#484, sofka#635: a block of YAML, or `base64` without `-w0`; kubectl takes both.
    #[test]
    fn base64_may_have_ends_of_lines_in_it() {
        let made = rcgen::generate_simple_self_signed(["c".to_owned()]).expect("a certificate");
        let wrapped = |text: &str| {
            let one = base64_of(text.as_bytes());
            let lines: Vec<&str> =
                one.as_bytes().chunks(76).map(|l| std::str::from_utf8(l).expect("ASCII")).collect();
            (one.clone(), lines.iter().map(|line| format!("      {line}\r\n")).collect::<String>())
        };
        let ((ca, ca_lines), (key, key_lines)) =
            (wrapped(&made.cert.pem()), wrapped(&made.signing_key.serialize_pem()));
        let text = format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\nclusters:\n- name: k\n  cluster:\n    \
             server: https://kube.example\n    certificate-authority-data: |\n{ca_lines}users:\n- name: u\n  user:\n    \
             client-certificate-data: |\n{ca_lines}    client-key-data: |\n{key_lines}"
        );
        let config = config_of(&text).expect("a way");
        assert_eq!(config.root_cert, Some(vec![made.cert.der().to_vec()]));
        assert_eq!(config.auth_info.client_certificate_data, Some(ca));
        assert_eq!(config.auth_info.client_key_data.map(|k| k.expose_secret().to_owned()), Some(key));
    }

    /// By a definition that is not the one in use (RFC 4648, 4).
    fn base64_of(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for three in bytes.chunks(3) {
            let bits =
                three.iter().chain([0, 0].iter()).take(3).fold(0u32, |all, byte| all << 8 | u32::from(*byte));
            for i in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize];
                text.push(if i <= three.len() { char::from(digit) } else { '=' });
            }
        }
        text
    }

    /// The library's order of what proves who asks.
    #[test]
    fn the_file_of_a_token_is_read_where_nothing_else_is_said() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), " secret\n").expect("written");
        let path = file.path().to_str().expect("text").to_owned();
        let asks = |auth: AuthInfo| {
            let mut auth = AuthInfo { token_file: Some(path.clone()), ..auth };
            let token = token_file(&mut auth).expect("good");
            assert_eq!(token.is_none(), auth.token_file.is_some(), "one of the two");
            token.map(|token| token.value().to_str().expect("text").to_owned())
        };
        assert_eq!(asks(AuthInfo::default()).as_deref(), Some("Bearer secret"));
        assert_eq!(asks(AuthInfo { token: Some("other".to_owned().into()), ..AuthInfo::default() }), None);
        let basic = (Some("me".to_owned()), Some("word".to_owned().into()));
        assert_eq!(asks(AuthInfo { username: basic.0, password: basic.1, ..AuthInfo::default() }), None);
        let mut none = AuthInfo { token_file: Some("/none".into()), ..AuthInfo::default() };
        assert!(token_file(&mut none).is_err_and(|e| e.contains("/none: No such file")));
    }

    fn config_of(text: &str) -> Result<Config, String> {
        super::config(Kubeconfig::from_yaml(text).expect("a kubeconfig"), &|_| None)
    }
}
