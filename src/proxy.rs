//! The HTTP proxy that the environment names (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`): on the way to the API server, and to
//! OTLP receivers.

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

/// The proxy that the environment names for this server, if `NO_PROXY` does not except it.
///
/// # Errors
/// The variable holds no URL.
pub fn of(server: &Uri, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Uri>, String> {
    let first = |names: [&str; 2]| names.into_iter().find_map(|name| env(name).filter(|v| !v.is_empty()));
    let url = match server.scheme_str() {
        Some("http") => first(["HTTP_PROXY", "http_proxy"]),
        _ => first(["HTTPS_PROXY", "https_proxy"]),
    };
    let Some(url) = url else { return Ok(None) };
    let except = first(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    // The matcher takes that for every name, and for no address.
    if except.split(',').any(|one| one.trim() == "*") {
        return Ok(None);
    }
    let full = if url.contains("://") { url.clone() } else { format!("http://{url}") };
    // It may hold a password.
    let proxy = full.parse().map_err(|_| "HTTPS_PROXY (or HTTP_PROXY) is no URL".to_owned())?;
    if Matcher::builder().all(url.as_str()).no(except).build().intercept(server).is_none() {
        return Ok(None);
    }
    Ok(Some(proxy))
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
        for except in ["*", "10.1.2.3", "10.0.0.0/8", "a.example,10.1.2.3,"] {
            assert_eq!(
                ask(server, &[("HTTPS_PROXY", "http://127.0.0.1:9"), ("NO_PROXY", except)]),
                None,
                "{except}"
            );
        }
        for (host, through) in [("api.corp.example", false), ("api.other.example", true)] {
            let set = [("HTTPS_PROXY", "http://127.0.0.1:9"), ("no_proxy", ".corp.example")];
            assert_eq!(ask(&format!("https://{host}/"), &set).is_some(), through, "{host}");
        }
        let env = |name: &str| (name == "HTTPS_PROXY").then(|| "http://a b/".to_owned());
        assert!(of(&server.parse().expect("a URL"), &env).is_err());
    }
}
