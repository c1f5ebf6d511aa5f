//! *Decides* what a span says of a request.

use http::{HeaderMap, Method, Uri, Version, header};
use tracing::Span;

/// Bytes of a text of a request that a span has.
const LONGEST: usize = 1024;

/// The method, as a span may name it: one of an open set would be a name for each request.
pub(super) fn method(method: &Method) -> &'static str {
    const KNOWN: [&str; 10] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY",
    ];
    let known = KNOWN.into_iter().find(|known| *known == method.as_str());
    known.unwrap_or("_OTHER")
}

/// The beginning of a text.
pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

/// A header as far as it is text.
pub(super) fn header_text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(cut)
}

pub(super) fn version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        Version::HTTP_3 => Some("3"),
        _ => None,
    }
}

/// Whom a request is for: by its URL, else by its `host`.
pub(super) fn server(uri: &Uri, headers: &HeaderMap) -> (Option<String>, Option<u16>) {
    if let Some(host) = uri.host() {
        return (Some(cut(host).to_owned()), port(uri));
    }
    let authority = header_text(headers, header::HOST)
        .and_then(|host| host.parse::<http::uri::Authority>().ok());
    let host = authority
        .as_ref()
        .map(|authority| authority.host().to_owned());
    (host, authority.and_then(|authority| authority.port_u16()))
}

fn port(uri: &Uri) -> Option<u16> {
    let by_scheme = match uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    };
    uri.port_u16().or(by_scheme)
}

/// Writes down that a request has failed, and by which kind of failure.
pub(super) fn failed(span: &Span, kind: &str) {
    span.record("error.type", kind);
    span.record("otel.status_code", "ERROR");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_of_few() {
        assert_eq!(method(&Method::PATCH), "PATCH");
        assert_eq!(method(&Method::from_bytes(b"BREW-7").unwrap()), "_OTHER");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("/orders"), "/orders");
        let long = "ä".repeat(1 << 20);
        assert_eq!(cut(&format!("x{long}")).len(), LONGEST - 1);
    }

    #[test]
    fn whom_a_request_is_for_is_said_by_its_url_or_its_host() {
        let table = [
            ("https://shop/a", "x", Some("shop"), Some(443)),
            ("http://shop:81/", "x", Some("shop"), Some(81)),
            ("/a", "shop:8080", Some("shop"), Some(8080)),
            ("/a", "[::1]:80", Some("[::1]"), Some(80)),
            ("/a", "not a host", None, None),
        ];
        for (uri, host, address, port) in table {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            let found = server(&uri.parse().unwrap(), &headers);
            assert_eq!(found, (address.map(str::to_owned), port), "{uri} {host}");
        }
    }
}
