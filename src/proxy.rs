//! The HTTP proxy that the environment names (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`): on the way to the API server, and to
//! OTLP receivers.

use std::net::IpAddr;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

/// The proxy that the environment names for this server: none for this machine itself, nor for what `NO_PROXY` excepts, as Go's
/// programs have it (`golang.org/x/net/http/httpproxy`), kubectl among them.
///
/// # Errors
/// The variable holds no URL.
pub fn of(server: &Uri, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Uri>, String> {
    let first = |names: [&str; 2]| {
        let set = names.into_iter().find_map(|name| env(name).filter(|value| !value.trim().is_empty()));
        set.map(|value| value.trim().to_owned())
    };
    let url = match server.scheme_str() {
        Some("http") => first(["HTTP_PROXY", "http_proxy"]),
        _ => first(["HTTPS_PROXY", "https_proxy"]),
    };
    let Some(url) = url else { return Ok(None) };
    if is_here(server) || is_excepted(server, &first(["NO_PROXY", "no_proxy"]).unwrap_or_default()) {
        return Ok(None);
    }
    let full = if url.contains("://") { url } else { format!("http://{url}") };
    // It may hold a password.
    full.parse().map(Some).map_err(|_| "HTTPS_PROXY (or HTTP_PROXY) is no URL".to_owned())
}

/// This machine itself: another's proxy would look for it on its own.
fn is_here(server: &Uri) -> bool {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a list like `10.0.0.0/8,.corp.example,api.example:6443` has this server in it.
fn is_excepted(server: &Uri, list: &str) -> bool {
    let https = server.scheme_str() != Some("http");
    let port = server.port_u16().unwrap_or(if https { 443 } else { 80 }).to_string();
    // The matcher knows neither everything, nor ports, nor a star before a domain.
    let mut rest = Vec::new();
    for one in list.split(',').map(str::trim) {
        let (host, of) = match one.rsplit_once(':') {
            Some((host, of)) if !host.contains(':') || host.ends_with(']') => (host, Some(of)),
            _ => (one, None),
        };
        if host == "*" && of.is_none() {
            return true;
        }
        if of.is_none_or(|of| of == port) {
            let host = host.trim_matches(['[', ']']);
            rest.push(if host.starts_with("*.") { &host[1..] } else { host });
        }
    }
    Matcher::builder().all("http://proxy").no(rest.join(",")).build().intercept(server).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environments_proxy_is_used_unless_excepted() {
        let ask = |server: &str, set: &[(&str, &str)]| {
            let env = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            of(&server.parse().expect("a URL"), &env).expect("good").map(|url| url.to_string())
        };
        let server = "https://10.1.2.3:6443/";
        assert_eq!(ask(server, &[]), None);
        let proxied = Some("http://127.0.0.1:9/".to_owned());
        assert_eq!(ask(server, &[("HTTPS_PROXY", "http://127.0.0.1:9")]), proxied);
        assert_eq!(ask(server, &[("https_proxy", "127.0.0.1:9")]), proxied);
        assert_eq!(ask(server, &[("HTTP_PROXY", "http://127.0.0.1:9")]), None, "of another scheme");
        let except = |server: &str, except: &str| {
            ask(server, &[("HTTPS_PROXY", "http://127.0.0.1:9"), ("NO_PROXY", except)]).is_none()
        };
        for list in ["*", "10.1.2.3", "10.0.0.0/8", "a.example,10.1.2.3,", ", 10.1.2.3:6443", "a b,*"] {
            assert!(except(server, list), "{list}");
        }
        for list in ["10.1.2.3:443", "10.1.2.30", "*.example", "10.1.2.3/33", "*:443", ",", "a b"] {
            assert!(!except(server, list), "{list}");
        }
        for list in [".corp.example", "*.corp.example", "corp.example:443", "API.corp.example"] {
            let set = [("HTTPS_PROXY", "http://127.0.0.1:9"), ("no_proxy", list)];
            assert_eq!(ask("https://api.corp.example/", &set), None, "{list}");
            assert_eq!(ask("https://api.other.example/", &set), proxied, "{list}");
        }
        for list in ["fd00::/8", "fd00::1", "[fd00::1]:6443", "[fd00::1]"] {
            assert!(except("https://[fd00::1]:6443/", list), "{list}");
            assert!(!except("https://[fe00::1]:6443/", list), "{list}");
        }
        // kubectl#743, cypress#4780: what is on this machine is not the proxy's to find.
        for here in ["localhost:6443", "LOCALHOST", "127.0.0.1:6443", "127.1.2.3", "[::1]:4317"] {
            assert_eq!(ask(&format!("https://{here}/"), &[("HTTPS_PROXY", "http://p:9")]), None, "{here}");
        }
        assert_eq!(ask(server, &[("HTTPS_PROXY", " "), ("https_proxy", " http://127.0.0.1:9 ")]), proxied);
        let env = |name: &str| (name == "HTTPS_PROXY").then(|| "http://a b/".to_owned());
        assert!(of(&server.parse().expect("a URL"), &env).is_err());
    }
}
