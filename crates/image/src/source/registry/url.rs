//! Where a redirect leads (RFC 3986, section 5.2, as far as registries need it).

use ureq::http::Uri;

/// Resolves a `Location` against the address that answered with it; `None` if it is no HTTP address.
pub(crate) fn join(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?.trim();
    let (scheme, authority) = (base.scheme_str()?, base.authority()?.as_str());
    let is_absolute = location.split(['/', '?']).next()?.contains(':');
    let text = if is_absolute {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let uri: Uri = text.parse().ok()?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    // A name and password in an address would be sent to a host of the redirecting server's choice.
    let is_plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    (is_http && is_plain && uri.host().is_some_and(|host| !host.is_empty())).then_some(uri)
}

/// Tells whether two addresses are of the same scheme, host and port, so that both may see one credential.
pub(crate) fn same_origin(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| {
        uri.port_u16().or(match uri.scheme_str() {
            Some("http") => Some(80),
            Some("https") => Some(443),
            _ => None,
        })
    };
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    a.scheme_str() == b.scheme_str() && host(a) == host(b) && port(a) == port(b)
}

/// Writes a value for a query (RFC 3986, section 2.3).
pub(crate) fn escape(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte))
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_resolved_against_where_it_came_from() {
        let base: Uri = "https://r.example:5000/v2/x/blobs/y?a=b".parse().unwrap();
        let table = [
            ("https://cdn.example/z?q=1#f", Some("https://cdn.example/z?q=1")),
            ("//cdn.example/z", Some("https://cdn.example/z")),
            ("/z", Some("https://r.example:5000/z")),
            ("z", Some("https://r.example:5000/v2/x/blobs/z")),
            ("?c=d", Some("https://r.example:5000/v2/x/blobs/y?c=d")),
            ("file:///etc/passwd", None),
            ("ftp://x/", None),
            ("http://user:word@x/", None),
            ("https:///x", None),
        ];
        for (location, expected) in table {
            assert_eq!(join(&base, location).map(|uri| uri.to_string()).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| same_origin(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(same("https://a.example/x", "https://A.example:443/y"));
        assert!(!same("https://a.example/", "http://a.example/"));
        assert!(!same("https://a.example/", "https://a.example:444/"));
        assert!(!same("https://a.example/", "https://b.example/"));
    }

    #[test]
    fn a_query_value_is_escaped() {
        assert_eq!(escape("repository:a/b:pull"), "repository%3Aa%2Fb%3Apull");
    }
}
