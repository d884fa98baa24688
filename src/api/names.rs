//! What Kubernetes takes for a name (RFC 1123), to tell a name from other text.

use crate::bounds;

/// A DNS label: the name of a namespace or of a container.
#[must_use]
pub fn is_label(s: &str) -> bool {
    s.len() <= bounds::DNS_LABEL && is_subdomain_part(s)
}

/// A DNS subdomain: the name of a pod, a node, a Deployment and most other objects.
#[must_use]
pub fn is_object_name(s: &str) -> bool {
    s.len() <= bounds::DNS_NAME && s.split('.').all(is_subdomain_part)
}

fn is_subdomain_part(s: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = s.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            alnum(first) && alnum(last) && bytes.iter().all(|&b| alnum(b) || b == b'-')
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_is_none() {
        for good in ["a", "web-0", "0", &"a".repeat(63)] {
            assert!(is_label(good) && is_object_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "ä", "a\n", "../x", "web;echo PWNED #", "$(id)", "--all"] {
            assert!(!is_label(bad) && !is_object_name(bad), "{bad:?}");
        }
        assert!(is_object_name("web-0.example") && !is_label("web-0.example"));
        assert!(!is_label(&"a".repeat(64)) && is_object_name(&"a".repeat(64)));
        for bad in [".", "a..b", "a.", "a/b", "a.-b", &"a".repeat(254)] {
            assert!(!is_object_name(bad), "{bad}");
        }
    }
}
