//! Reads the numbers that ids are written as: nothing but digits, and no more than fit.

use std::ops::RangeInclusive;

/// Reads so many hexadecimal digits, in lower case.
pub(super) fn lower_hex(text: &str, digits: usize) -> Option<u128> {
    let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    is_lower.then(|| hex(text, digits..=digits)).flatten()
}

/// Reads hexadecimal digits in any case, at most 32.
pub(super) fn hex(text: &str, digits: RangeInclusive<usize>) -> Option<u128> {
    // A sign would be taken for a part of the number.
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number =
        (is_hex && digits.contains(&text.len())).then(|| u128::from_str_radix(text, 16).ok());
    number.flatten()
}

/// Reads decimal digits.
pub(super) fn decimal(text: &str) -> Option<u128> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    is_decimal.then(|| text.parse().ok()).flatten()
}

/// Reads a UUID: 8, 4, 4, 4 and 12 hexadecimal digits with dashes between (RFC 9562, section 4).
pub(super) fn uuid(text: &str) -> Option<u128> {
    let mut number = 0;
    let mut groups = text.split('-');
    for digits in [8, 4, 4, 4, 12] {
        number = number << (4 * digits) | hex(groups.next()?, digits..=digits)?;
    }
    groups.next().is_none().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_and_nothing_else() {
        let hexadecimal = [
            ("00ff", Some(255)),
            ("00FF", Some(255)),
            ("0ff", None),
            ("+0ff", None),
            ("0x0f", None),
            ("00f\u{e9}", None),
        ];
        for (text, expected) in hexadecimal {
            assert_eq!(hex(text, 4..=4), expected, "{text:?}");
        }
        assert_eq!(lower_hex("00FF", 4), None);
        assert_eq!(lower_hex("00ff", 4), Some(255));
        let decimals = [
            ("0012", Some(12)),
            ("+12", None),
            ("-1", None),
            ("", None),
            ("1 ", None),
        ];
        for (text, expected) in decimals {
            assert_eq!(decimal(text), expected, "{text:?}");
        }
        let above = "340282366920938463463374607431768211456";
        assert_eq!(decimal(above), None);
    }

    #[test]
    fn a_uuid_has_its_dashes() {
        let number = Some(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(uuid("01234567-89ab-cdef-0123-456789abcdef"), number);
        assert_eq!(uuid("01234567-89AB-CDEF-0123-456789ABCDEF"), number);
        for text in [
            "0123456789abcdef0123456789abcdef",
            "01234567-89ab-cdef-0123-456789abcdef-",
            "01234567-89ab-cdef-0123-456789abcdeg",
            "0123456-789ab-cdef-0123-456789abcdef",
        ] {
            assert_eq!(uuid(text), None, "{text:?}");
        }
    }
}
