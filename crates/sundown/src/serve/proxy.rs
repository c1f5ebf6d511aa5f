//! Who a connection comes from, where a proxy says so in front of all else (the PROXY protocol, versions 1
//! and 2).
//!
//! Pure: bytes are shown, and it says how many of them are the header. Never guesses: what is no header is an
//! error, because whoever may write one may claim to be anybody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What has been read of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// More has to come.
    Partial,
    Whole {
        length: usize,
        /// `None` where the proxy speaks for itself, or does not know.
        peer: Option<SocketAddr>,
    },
}

/// Means that the bytes are not a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no header of the PROXY protocol")]
pub(super) struct Garbled;

/// What version 1 begins with.
const TEXT: &[u8] = b"PROXY ";

/// The longest header of version 1, its line end included.
const LONGEST_TEXT: usize = 107;

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version with command, family with protocol, and a length.
const FIXED: usize = 16;

/// The longest header of version 2 that is read: addresses, and what else a proxy may want to tell.
pub(super) const LONGEST: usize = 4096;

pub(super) fn read(bytes: &[u8]) -> Result<Header, Garbled> {
    if begins_alike(bytes, SIGNATURE) {
        binary(bytes)
    } else if begins_alike(bytes, TEXT) {
        text(bytes)
    } else {
        Err(Garbled)
    }
}

/// Whether the one can still become what begins with the other.
fn begins_alike(bytes: &[u8], beginning: &[u8]) -> bool {
    bytes.iter().zip(beginning).all(|(one, other)| one == other)
}

fn text(bytes: &[u8]) -> Result<Header, Garbled> {
    let line = &bytes[..bytes.len().min(LONGEST_TEXT)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return match bytes.len() {
            0..LONGEST_TEXT => Ok(Header::Partial),
            _ => Err(Garbled),
        };
    };
    let line = std::str::from_utf8(&line[..end]).map_err(|_| Garbled)?;
    let words: Vec<&str> = line.split(' ').collect();
    let peer = match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family, from, to, from_port, to_port] => {
            let address = |text: &str| match *family {
                "TCP4" => text.parse().map(IpAddr::V4).map_err(|_| Garbled),
                "TCP6" => text.parse().map(IpAddr::V6).map_err(|_| Garbled),
                _ => Err(Garbled),
            };
            address(to)?;
            port(to_port)?;
            Some(SocketAddr::new(address(from)?, port(from_port)?))
        }
        _ => return Err(Garbled),
    };
    let length = end + 2;
    Ok(Header::Whole { length, peer })
}

/// A number that is written as people do, without a sign.
fn port(text: &str) -> Result<u16, Garbled> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number.ok_or(Garbled)
}

fn binary(bytes: &[u8]) -> Result<Header, Garbled> {
    const LOCAL: u8 = 0x20;
    const PROXIED: u8 = 0x21;
    const TCP4: u8 = 0x11;
    const TCP6: u8 = 0x21;
    let Some(fixed) = bytes.first_chunk::<FIXED>() else {
        return Ok(Header::Partial);
    };
    let [.., command, family, high, low] = *fixed;
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST || !matches!(command, LOCAL | PROXIED) {
        return Err(Garbled);
    }
    let Some(rest) = bytes.get(FIXED..length) else {
        return Ok(Header::Partial);
    };
    let peer = match (command, family) {
        (PROXIED, TCP4) => Some(source::<4, 12>(rest, |octets| {
            Ipv4Addr::from(octets).into()
        })?),
        (PROXIED, TCP6) => Some(source::<16, 36>(rest, |octets| {
            Ipv6Addr::from(octets).into()
        })?),
        // Of another kind, or the proxy's own.
        _ => None,
    };
    Ok(Header::Whole { length, peer })
}

/// Two addresses of `N` bytes and two ports stand first.
fn source<const N: usize, const ALL: usize>(
    rest: &[u8],
    address: impl FnOnce([u8; N]) -> IpAddr,
) -> Result<SocketAddr, Garbled> {
    let addresses = rest.first_chunk::<ALL>().ok_or(Garbled)?;
    let octets = addresses.first_chunk::<N>().ok_or(Garbled)?;
    let port = u16::from_be_bytes([addresses[2 * N], addresses[2 * N + 1]]);
    Ok(SocketAddr::new(address(*octets), port))
}

/// See `crate::fuzzing`.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    let Ok(Header::Whole { length, peer }) = read(bytes) else {
        return;
    };
    assert!((1..=LONGEST.min(bytes.len())).contains(&length));
    // Byte by byte it would have been the same, and nothing before its last byte.
    assert_eq!(read(&bytes[..length]), Ok(Header::Whole { length, peer }));
    assert_eq!(read(&bytes[..length - 1]), Ok(Header::Partial));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(length: usize, peer: Option<&str>) -> Result<Header, Garbled> {
        let peer = peer.map(|peer| peer.parse().unwrap());
        Ok(Header::Whole { length, peer })
    }

    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[test]
    fn version_1_is_a_line() {
        let table = [
            (
                "PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\r\nGET",
                whole(36, Some("1.2.3.4:1111")),
            ),
            ("PROXY TCP6 ::1 ::2 1 2\r\n", whole(24, Some("[::1]:1"))),
            ("PROXY UNKNOWN\r\n", whole(15, None)),
            ("PROXY UNKNOWN ffff::1 and more\r\n", whole(32, None)),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 1111 8", Ok(Header::Partial)),
            ("PR", Ok(Header::Partial)),
            ("", Ok(Header::Partial)),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 +1 80\r\n", Err(Garbled)),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 65536 80\r\n", Err(Garbled)),
            ("PROXY TCP4 ::1 ::2 1 2\r\n", Err(Garbled)),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", Err(Garbled)),
            ("PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", Err(Garbled)),
            ("GET / HTTP/1.1\r\n", Err(Garbled)),
        ];
        for (bytes, expected) in table {
            assert_eq!(read(bytes.as_bytes()), expected, "{bytes:?}");
        }
        let endless = [TEXT, &[b'x'; LONGEST_TEXT]].concat();
        assert_eq!(read(&endless), Err(Garbled));
    }

    #[test]
    fn version_2_is_of_a_declared_length() {
        let four = [1, 2, 3, 4, 5, 6, 7, 8, 0x04, 0x57, 0, 80];
        let six = [&[0_u8; 15][..], &[1], &[0; 15], &[2], &[0, 1, 0, 2]].concat();
        let more = [&four[..], b"\x04\0\x01x"].concat();
        let table = [
            (
                version_2(0x21, 0x11, &four),
                whole(28, Some("1.2.3.4:1111")),
            ),
            (
                version_2(0x21, 0x11, &more),
                whole(32, Some("1.2.3.4:1111")),
            ),
            (version_2(0x21, 0x21, &six), whole(52, Some("[::1]:1"))),
            (version_2(0x20, 0, &[]), whole(16, None)),
            (version_2(0x21, 0x31, &[0; 216]), whole(232, None)),
            (version_2(0x21, 0x11, &four[..11]), Err(Garbled)),
            (version_2(0x31, 0x11, &four), Err(Garbled)),
            (version_2(0x22, 0x11, &four), Err(Garbled)),
            (version_2(0x21, 0, &[0; LONGEST]), Err(Garbled)),
        ];
        for (bytes, expected) in table {
            assert_eq!(read(&bytes), expected, "{bytes:?}");
        }
        let bytes = version_2(0x21, 0x11, &four);
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), Ok(Header::Partial), "{end} bytes");
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..3) {
            let beginning = [&b""[..], TEXT, SIGNATURE][kind as usize];
            let bytes = [beginning, &bytes].concat();
            if let Ok(Header::Whole { length, .. }) = read(&bytes) {
                prop_assert!(length <= bytes.len());
                // What follows changes nothing, and less is not enough.
                prop_assert_eq!(read(&bytes[..length]), read(&bytes));
                prop_assert_eq!(read(&bytes[..length - 1]), Ok(Header::Partial));
            }
        }
    }
}
