//! *Decides* where in a text card numbers are.
//!
//! A card number is 12 to 19 digits that begin as some issuer's numbers do, have the length of that issuer's, and pass
//! the check of Luhn (ISO/IEC 7812-1, annex B). Its digits may be split anywhere by spaces and dashes, as people and
//! URLs write them. Digits of a number of another kind are none: a fraction, a hexadecimal id, a UUID, any number
//! with more digits.

use std::ops::Range;

/// The fewest and the most digits of a card number.
const FEWEST: usize = 12;
const MOST: usize = 19;

/// How many separators may stand between two digits.
const BETWEEN: usize = 3;

/// The greatest length of an issuer's prefix that is looked at.
const PREFIX: usize = 6;

/// Digits without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Group {
    start: usize,
    end: usize,
    /// Whether they may be a card's.
    usable: bool,
}

/// Finds all card numbers, in order; those that overlap are one.
pub(super) fn find(text: &[u8], found: &mut Vec<Range<usize>>) {
    // Most texts have few digits, and are done with here.
    if text.iter().filter(|byte| byte.is_ascii_digit()).count() < FEWEST {
        return;
    }
    let mut run: Vec<Group> = Vec::new();
    let mut at = 0;
    while let Some(digit) = text[at..].iter().position(u8::is_ascii_digit) {
        at += digit;
        run.clear();
        at = read_run(text, at, &mut run);
        let digits: usize = run.iter().map(|group| group.end - group.start).sum();
        if digits >= FEWEST {
            judge(text, &run, found);
        }
    }
}

/// Reads groups until what follows is neither a digit nor a separator; returns where that is.
fn read_run(text: &[u8], mut at: usize, run: &mut Vec<Group>) -> usize {
    loop {
        let start = at;
        while text.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        // `%20` and `\u0020` end in digits that may be a separator's.
        match start + digits_of_an_escape(&text[..start]) {
            split if split > start && split < at => {
                run.push(group(text, start, split, at));
                run.push(group(text, split, at, at));
            }
            _ => run.push(group(text, start, at, at)),
        }
        let mut next = at;
        for _ in 0..BETWEEN {
            next += separator(&text[next..]);
        }
        if next == at || !text.get(next).is_some_and(u8::is_ascii_digit) {
            return at;
        }
        at = next;
    }
}

/// The digits from `start` to `end`, which are part of those up to `all`.
fn group(text: &[u8], start: usize, end: usize, all: usize) -> Group {
    let is_fraction = match &text[..start] {
        [.., before, b'.'] => before.is_ascii_digit(),
        _ => false,
    };
    Group {
        start,
        end,
        usable: end - start <= MOST && !is_fraction && !is_hexadecimal(text, start, all),
    }
}

/// How many digits after this text belong to an escape that begins in it.
fn digits_of_an_escape(before: &[u8]) -> usize {
    match before {
        [.., b'%'] => 2,
        [.., b'\\', b'x'] => 2,
        [.., b'\\', b'u'] => 4,
        _ => 0,
    }
}

/// The length of the separator that a text begins with; 0 if it begins with none.
fn separator(text: &[u8]) -> usize {
    match text {
        [b' ' | b'-' | b'+' | b'\t', ..] => 1,
        [b'%', b'2', b'0' | b'D' | b'd' | b'B' | b'b', ..] => 3,
        // No-break space.
        [0xC2, 0xA0, ..] => 2,
        // U+2000 to U+2015: spaces of many widths, joiners, hyphens and dashes; U+202F; U+2212, minus.
        [0xE2, 0x80, 0x80..=0x95 | 0xAF, ..] | [0xE2, 0x88, 0x92, ..] => 3,
        _ => 0,
    }
}

/// Whether digits are part of a hexadecimal number: letters from a to f beside them and no others, or `0x` before.
fn is_hexadecimal(text: &[u8], start: usize, end: usize) -> bool {
    let before = match &text[..start] {
        // Its digits are of a character of its own.
        [.., b'%', _, _] => 0,
        before => {
            let letters = before.iter().rev();
            letters
                .take_while(|byte| byte.is_ascii_alphanumeric())
                .count()
        }
    };
    let begin = start - before;
    let after = text[end..].iter();
    let after = after.take_while(|byte| byte.is_ascii_alphanumeric());
    let word = &text[begin..end + after.count()];
    let digits = word
        .strip_prefix(b"0x")
        .or_else(|| word.strip_prefix(b"0X"));
    let is_hex = |word: &[u8]| word.iter().all(u8::is_ascii_hexdigit);
    match digits {
        Some(digits) => is_hex(digits),
        None => is_hex(word) && word.iter().any(u8::is_ascii_alphabetic),
    }
}

/// Finds the card numbers that begin and end with a group each.
fn judge(text: &[u8], run: &[Group], found: &mut Vec<Range<usize>>) {
    for first in 0..run.len() {
        let mut digits = [0; MOST];
        let mut count = 0;
        for group in &run[first..] {
            let bytes = &text[group.start..group.end];
            if !group.usable || count + bytes.len() > MOST {
                break;
            }
            for (digit, byte) in digits[count..].iter_mut().zip(bytes) {
                *digit = byte - b'0';
            }
            count += bytes.len();
            let range = run[first].start..group.end;
            if is_card(&digits[..count]) && !is_in_a_uuid(text, &range) {
                match found.last_mut() {
                    Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                    _ => found.push(range),
                }
            }
        }
    }
}

fn is_card(digits: &[u8]) -> bool {
    digits.len() >= FEWEST && has_issuer(digits) && passes_luhn(digits)
}

/// Whether some issuer's numbers begin like these and are as long (ISO/IEC 7812; the issuers' published ranges).
fn has_issuer(digits: &[u8]) -> bool {
    let prefix = digits[..PREFIX].iter();
    let six = prefix.fold(0, |number, digit| number * 10 + u32::from(*digit));
    let (four, three, two) = (six / 100, six / 1_000, six / 10_000);
    match digits.len() {
        // Visa
        13 if two / 10 == 4 => true,
        16 | 19 if two / 10 == 4 => true,
        // Mastercard
        16 if matches!(two, 51..=55) || matches!(four, 2221..=2720) => true,
        // American Express
        15 if matches!(two, 34 | 37) => true,
        // Discover
        16..=19 if four == 6011 || two == 65 || matches!(three, 644..=649) => true,
        // JCB
        16..=19 if matches!(four, 3528..=3589) => true,
        // Diners Club
        14..=19 if matches!(three, 300..=305) || matches!(two, 36 | 38 | 39) => true,
        // UnionPay
        16..=19 if two == 62 => true,
        // Mir
        16..=19 if matches!(four, 2200..=2204) => true,
        // Maestro
        12..=19 => matches!(four, 5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763),
        _ => false,
    }
}

fn passes_luhn(digits: &[u8]) -> bool {
    let weighed = digits.iter().rev().enumerate().map(|(place, &digit)| {
        let doubled = 2 * u32::from(digit);
        match place % 2 {
            0 => u32::from(digit),
            _ if doubled > 9 => doubled - 9,
            _ => doubled,
        }
    });
    weighed.sum::<u32>() % 10 == 0
}

/// Whether a range overlaps a UUID: 8, 4, 4, 4 and 12 hexadecimal digits, with dashes between.
fn is_in_a_uuid(text: &[u8], range: &Range<usize>) -> bool {
    const LENGTH: usize = 36;
    let first = range.start.saturating_sub(LENGTH - 1);
    let last = range.end.min(text.len().saturating_sub(LENGTH - 1));
    (first..last).any(|at| {
        let mut bytes = text[at..at + LENGTH].iter().enumerate();
        bytes.all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        find(text.as_bytes(), &mut found);
        found.into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn card_numbers_are_found_however_they_are_written() {
        let table = [
            ("4111111111111111", "4111111111111111"),
            (
                "paid with 4111 1111 1111 1111, thanks",
                "4111 1111 1111 1111",
            ),
            ("5500-0000-0000-0004", "5500-0000-0000-0004"),
            ("amex 3782 822463 10005.", "3782 822463 10005"),
            (
                "?pan=4111%201111%201111%201111&x=1",
                "4111%201111%201111%201111",
            ),
            ("?q=card+4111+1111+1111+1111", "4111+1111+1111+1111"),
            ("?q=%204111111111111111", "4111111111111111"),
            (r#"{"pan":"4111111111111111"}"#, "4111111111111111"),
            (r#"{\"note\":\"\n4111111111111111\"}"#, "4111111111111111"),
            (r"\u00204111111111111111", "4111111111111111"),
            (
                "4\u{2011}1\u{a0}1 1-1111111 1 1 1 1 1",
                "4\u{2011}1\u{a0}1 1-1111111 1 1 1 1 1",
            ),
            ("order 42 4111111111111111 12/27 123", "4111111111111111"),
            ("card4111111111111111", "4111111111111111"),
            ("6759649826438453", "6759649826438453"),
        ];
        for (text, card) in table {
            assert_eq!(found(text), [card], "{text}");
        }
        assert_eq!(found("4111111111111111,5500000000000004").len(), 2);
    }

    #[test]
    fn other_numbers_are_none() {
        let table = [
            "4111111111111112",
            "41111111111111110000",
            "1764230000000 1764230000000000 1764230000000000000",
            "took 0.4111111111111111 s",
            "4111111111111111a",
            "0x4111111111111111",
            "aaaaaaaa-4111-1111-1111-111111111111",
            "41111111-1111-1111-9111-111111111111",
            "00f067aa0ba902b74111111111111111",
            "0000000000000000",
            "1111111111111117",
            "1, 2, 3, 4111, 1111, 1111, 1111",
        ];
        for text in table {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }
}
