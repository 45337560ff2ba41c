//! Who may ask: the name in the request, the token, and what answers tell a browser to forbid.
//!
//! **Invariant:** without a token, only requests that name this machine by address or as `localhost` are answered, so that a
//! page elsewhere cannot reach the dashboard through a name that it points here. With a token, tokens are compared in a time
//! that does not depend on how much of them is right. **Left out:** encryption: put a proxy before it, or a tunnel.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// The cookie that remembers the token.
pub const COOKIE: &str = "mobula-dashboard";

/// Whether the request names this machine in a way that no foreign name server decides.
pub fn knows_host(headers: &HeaderMap, token: bool) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    // Who has to know a token cannot be used by a page that does not.
    token || is_local(host)
}

/// Whether a host, perhaps with a port, is an address or `localhost`.
fn is_local(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, rest)) => (name, rest),
            None => return false,
        },
        None => match host.find(':') {
            Some(at) => host.split_at(at),
            None => (host, ""),
        },
    };
    let number = |port: &str| port.parse::<u16>().is_ok();
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(number) {
        return false;
    }
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Whether the request carries the token.
pub fn knows_token(headers: &HeaderMap, token: &str) -> bool {
    let bearer = headers.get_all(header::AUTHORIZATION).iter();
    let bearer = bearer.filter_map(|v| v.as_bytes().strip_prefix(b"Bearer "));
    let cookies = headers.get_all(header::COOKIE).iter();
    let cookies = cookies.flat_map(|v| v.as_bytes().split(|&b| b == b';'));
    let cookies = cookies.filter_map(|c| {
        c.trim_ascii()
            .strip_prefix(COOKIE.as_bytes())?
            .strip_prefix(b"=")
    });
    // Every claim is looked at, whether or not an earlier one was right.
    bearer
        .chain(cookies)
        .fold(false, |known, claim| known | same(claim, token.as_bytes()))
}

/// Whether two texts are the same; takes as long as the claim is, whatever it says.
pub fn same(claim: &[u8], token: &[u8]) -> bool {
    let mut differ = u8::from(claim.len() != token.len());
    for (i, &byte) in claim.iter().enumerate() {
        let expected = token.get(i).copied().unwrap_or(!byte);
        differ = std::hint::black_box(differ | (byte ^ expected));
    }
    differ == 0
}

/// What every answer says: take nothing from elsewhere, run no script but the page's, keep nothing, show it in no frame.
pub fn harden(headers: &mut HeaderMap) {
    const ALL: [(HeaderName, &str); 7] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in ALL {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_local() {
        for host in [
            "localhost",
            "LocalHost:80",
            "127.0.0.1",
            "127.0.0.1:8265",
            "[::1]",
            "[::1]:9",
            "10.0.0.7:1",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1:x",
            "127.0.0.1:99999",
            "[::1",
            "[::1]x",
            "::1",
            "localhost:",
            "127.0.0.1:80:80",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn one_host_is_named() {
        let mut headers = HeaderMap::new();
        assert!(!knows_host(&headers, false));
        assert!(!knows_host(&headers, true));
        headers.append(header::HOST, HeaderValue::from_static("localhost"));
        assert!(knows_host(&headers, false));
        headers.append(header::HOST, HeaderValue::from_static("localhost"));
        assert!(!knows_host(&headers, false), "two names");
    }

    #[test]
    fn tokens_are_told_apart() {
        assert!(same(b"abcd", b"abcd"));
        for claim in [&b"abce"[..], b"abc", b"abcde", b"", b"\x00bcd"] {
            assert!(!same(claim, b"abcd"), "{claim:?}");
        }
        let mut headers = HeaderMap::new();
        assert!(!knows_token(&headers, "abcd"));
        headers.insert(
            header::COOKIE,
            HeaderValue::from_static("x=1; mobula-dashboard=abcd; y=2"),
        );
        assert!(knows_token(&headers, "abcd"));
        headers.insert(
            header::COOKIE,
            HeaderValue::from_static("mobula-dashboardx=abcd"),
        );
        assert!(!knows_token(&headers, "abcd"));
        headers.insert(
            header::AUTHORIZATION,
            HeaderValue::from_static("Bearer abcd"),
        );
        assert!(knows_token(&headers, "abcd"));
        assert!(!knows_token(&headers, "abcf"));
    }
}
