//! *Decides* who may ask the admin listener for what.

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use subtle::ConstantTimeEq as _;

use crate::error::Error;
use crate::serve::LocalAddress;

/// What keeps others out.
pub(super) struct Access {
    token: Option<String>,
}

/// Why somebody may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The token is missing, or another.
    Token,
    /// A web page asks, or somebody by a name that a web page may have given to this address.
    Page,
}

impl Access {
    pub(super) fn new(token: Option<String>) -> Self {
        Self { token }
    }

    /// Where others can connect there has to be a token.
    pub(super) fn check_reach(&self, address: &LocalAddress) -> Result<(), Error> {
        let within = match address {
            LocalAddress::Tcp(address) => address.ip().to_canonical().is_loopback(),
            LocalAddress::Unix(_) => true,
        };
        if within || self.token.is_some() {
            return Ok(());
        }
        Err(Error::Admin(format!(
            "others can connect to {address}: set SUNDOWN_ADMIN_TOKEN (or Admin::token), or listen on 127.0.0.1"
        )))
    }

    pub(super) fn check(&self, request: &Parts) -> Result<(), Refused> {
        let host = host(request);
        if let Some(origin) = request.headers.get(ORIGIN) {
            let origin = origin.to_str().ok().and_then(|text| text.split_once("://"));
            let own = origin.is_some_and(|(_, origin)| Some(origin) == host.as_deref());
            if !own {
                return Err(Refused::Page);
            }
        }
        match &self.token {
            Some(token) if is_shown(token, request) => Ok(()),
            Some(_) => Err(Refused::Token),
            None if host.as_deref().is_none_or(is_no_domain) => Ok(()),
            None => Err(Refused::Page),
        }
    }
}

/// Compares without telling by the time it takes how much was right.
fn is_shown(token: &str, request: &Parts) -> bool {
    let shown = request.headers.get(AUTHORIZATION);
    let shown = shown.and_then(|value| {
        let (scheme, rest) = value.as_bytes().split_at_checked(BEARER.len())?;
        scheme.eq_ignore_ascii_case(BEARER).then_some(rest)
    });
    shown.is_some_and(|shown| shown.trim_ascii().ct_eq(token.as_bytes()).into())
}

/// The scheme of RFC 6750, and the space behind it.
const BEARER: &[u8] = b"Bearer ";

/// How the client calls the listener.
fn host(request: &Parts) -> Option<String> {
    let named = request.uri.authority().map(Authority::to_string);
    named.or_else(|| {
        let host = request.headers.get(HOST)?;
        // What cannot be read is the name of nobody.
        Some(String::from_utf8_lossy(host.as_bytes()).into_owned())
    })
}

/// An IP address or `localhost`: what no name server can turn into this address.
fn is_no_domain(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        // Over a Unix socket there need be none.
        return host.is_empty();
    };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<std::net::IpAddr>().is_ok()
}

/// See `crate::fuzzing`: a line each of Authorization, Host and Origin.
#[cfg(fuzzing)]
pub(super) fn fuzz(bytes: &[u8]) {
    const TOKEN: &str = "0123456789abcdef";
    let mut request = http::Request::new(());
    let lines = bytes.split(|byte| *byte == b'\n');
    for (name, value) in [AUTHORIZATION, HOST, ORIGIN].into_iter().zip(lines) {
        if let Ok(value) = http::HeaderValue::from_bytes(value) {
            request.headers_mut().insert(name, value);
        }
    }
    let (parts, ()) = request.into_parts();
    let guarded = Access::new(Some(TOKEN.to_owned())).check(&parts);
    let shown = bytes
        .windows(TOKEN.len())
        .any(|part| part == TOKEN.as_bytes());
    assert!(shown || guarded.is_err());
    let _ = Access::new(None).check(&parts);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn asked(headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::get("/lifecycle");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_token_is_wanted_whole_and_by_its_scheme() {
        let access = Access::new(Some(TOKEN.to_owned()));
        let table = [
            ("Bearer 0123456789abcdef", true),
            ("bearer 0123456789abcdef", true),
            ("Bearer  0123456789abcdef ", true),
            ("Bearer 0123456789abcde", false),
            ("Bearer 0123456789abcdefg", false),
            ("Bearer 0123456789abcdeF", false),
            ("Bearer ", false),
            ("Bearer", false),
            ("Basic 0123456789abcdef", false),
            ("0123456789abcdef", false),
            ("", false),
        ];
        for (value, right) in table {
            let verdict = access.check(&asked(&[
                ("host", "shop.example"),
                ("authorization", value),
            ]));
            assert_eq!(verdict.is_ok(), right, "{value:?}");
        }
        assert_eq!(access.check(&asked(&[])), Err(Refused::Token));
    }

    #[test]
    fn without_a_token_no_page_asks_in_its_readers_place() {
        let access = Access::new(None);
        let table = [
            (None, None, true),
            (Some("127.0.0.1:9090"), None, true),
            (Some("[::1]:9090"), None, true),
            (Some("localhost:9090"), None, true),
            (Some("10.1.2.3"), None, true),
            (Some("evil.example:9090"), None, false),
            (Some("127.0.0.1.evil.example"), None, false),
            (Some("not a host"), None, false),
            (Some("127.0.0.1:9090"), Some("http://127.0.0.1:9090"), true),
            (Some("127.0.0.1:9090"), Some("http://127.0.0.1:80"), false),
            (Some("127.0.0.1:9090"), Some("https://evil.example"), false),
            (Some("127.0.0.1:9090"), Some("null"), false),
        ];
        for (host, origin, may) in table {
            let headers: Vec<_> = [("host", host), ("origin", origin)]
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
            let verdict = access.check(&asked(&headers));
            assert_eq!(verdict.is_ok(), may, "{host:?} {origin:?}");
        }
    }

    #[test]
    fn where_others_can_connect_there_has_to_be_a_token() {
        let tcp = |text: &str| LocalAddress::Tcp(text.parse().unwrap());
        let within = [
            tcp("127.0.0.1:1"),
            tcp("127.9.9.9:1"),
            tcp("[::1]:1"),
            tcp("[::ffff:127.0.0.1]:1"),
            LocalAddress::Unix("/run/shop.sock".into()),
        ];
        for address in within {
            assert!(Access::new(None).check_reach(&address).is_ok(), "{address}");
        }
        for address in [tcp("0.0.0.0:1"), tcp("[::]:1"), tcp("192.0.2.1:1")] {
            let error = Access::new(None).check_reach(&address).unwrap_err();
            assert_eq!(error.exit_status().code(), 2);
            let guarded = Access::new(Some(TOKEN.to_owned()));
            assert!(guarded.check_reach(&address).is_ok(), "{address}");
        }
    }
}
