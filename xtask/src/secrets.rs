//! `cargo xtask secrets`: what a log gives away, of card numbers that are written in every way that people and
//! programs know, and what it spoils, of ids and timestamps that look like some.
//!
//! Everything goes through the log as a service uses it, and is read from the lines that it has written.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;
use sundown_telemetry::{Format, Logs, WhenFull};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::{Verdict, progress};

/// Log card numbers however they are written, and ids that look like some, and count what stays of each
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many lines of each kind
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1_000_000,
        env = "XTASK_LINES"
    )]
    lines: u64,
    /// Begins the random numbers, so that a run can be repeated
    #[arg(long, value_name = "N", default_value_t = 1, env = "XTASK_SEED")]
    seed: u64,
    /// Print JSON instead of a table
    #[arg(long, env = "XTASK_JSON")]
    json: bool,
}

/// How many lines are read at a time.
const BATCH: u64 = 10_000;

/// How long a batch may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How many examples are shown of what should not be.
const EXAMPLES: usize = 5;

#[derive(Default, Serialize)]
struct Found {
    lines: u64,
    /// Card numbers that can be read.
    leaked: u64,
    leaks: Vec<String>,
    /// Ids and timestamps that are not as they were.
    spoiled: u64,
    spoils: Vec<String>,
    /// Numbers of 16 random digits that were taken for a card's.
    taken_for_cards: u64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    let mut random = StdRng::seed_from_u64(arguments.seed);
    let mut found = Found::default();
    while found.lines < arguments.lines {
        progress::line(&format!("{} of {} lines", found.lines, arguments.lines));
        let batch = BATCH.min(arguments.lines - found.lines);
        found.lines += batch;
        find_leaks(&mut random, batch, &mut found)?;
        find_spoils(&mut random, batch, &mut found)?;
        found.taken_for_cards += taken_for_cards(&mut random, batch)?;
    }
    progress::clear();
    if arguments.json {
        let document = serde_json::json!({"schema": 1, "found": found});
        println!("{document}");
    } else {
        print(&found);
    }
    Ok(match (found.leaked, found.spoiled) {
        (0, 0) => Verdict::Holds,
        _ => Verdict::Broken,
    })
}

fn print(found: &Found) {
    let lines = found.lines;
    println!("{} card numbers can be read in {lines} lines", found.leaked);
    println!(
        "{} of {lines} ids and timestamps are spoiled",
        found.spoiled
    );
    let share = 100.0 * found.taken_for_cards as f64 / lines as f64;
    println!("{share:.2} % of {lines} numbers of 16 random digits are taken for a card's");
    for example in found.leaks.iter().chain(&found.spoils) {
        println!("    {example}");
    }
}

fn find_leaks(random: &mut StdRng, lines: u64, found: &mut Found) -> anyhow::Result<()> {
    let cards: Vec<String> = (0..lines).map(|_| card(random)).collect();
    let texts: Vec<String> = cards.iter().map(|card| in_context(random, card)).collect();
    for ((card, text), line) in cards.iter().zip(&texts).zip(logged(&texts)?) {
        if digits(&line.to_string()).contains(card.as_str()) {
            found.leaked += 1;
            if found.leaks.len() < EXAMPLES {
                found.leaks.push(format!("{card} in {text:?}"));
            }
        }
    }
    Ok(())
}

fn find_spoils(random: &mut StdRng, lines: u64, found: &mut Found) -> anyhow::Result<()> {
    let texts: Vec<String> = (0..lines).map(|_| id(random)).collect();
    for (text, line) in texts.iter().zip(logged(&texts)?) {
        if line["message"] != text.as_str() || line["field"] != text.as_str() {
            found.spoiled += 1;
            if found.spoils.len() < EXAMPLES {
                found.spoils.push(text.clone());
            }
        }
    }
    Ok(())
}

fn taken_for_cards(random: &mut StdRng, lines: u64) -> anyhow::Result<u64> {
    let texts: Vec<String> = (0..lines).map(|_| random_digits(random, 16)).collect();
    let lines = logged(&texts)?;
    let taken = texts.iter().zip(lines);
    Ok(taken
        .filter(|(text, line)| line["message"] != text.as_str())
        .count() as u64)
}

/// What a log has written for a line with each text as its message and as a field.
fn logged(texts: &[String]) -> anyhow::Result<Vec<serde_json::Value>> {
    let memory = Memory::default();
    let logs = Logs::of("secrets")
        .format(Format::Json)
        .writer(memory.clone());
    let (layer, log) = logs.when_full(WhenFull::Wait).layer()?;
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        for text in texts {
            tracing::info!(field = text, "{text}");
        }
    });
    log.flush(LIMIT)?;
    let bytes = memory.0.lock().unwrap_or_else(PoisonError::into_inner);
    let lines = bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).context("a line is no JSON"))
        .collect()
}

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The digits of a text, without those of percent-encoded characters.
fn digits(text: &str) -> String {
    let mut digits = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '%' => drop(characters.nth(1)),
            digit if digit.is_ascii_digit() => digits.push(digit),
            _ => {}
        }
    }
    digits
}

/// A number that some issuer could have given.
fn card(random: &mut StdRng) -> String {
    // A prefix and a length of each issuer's.
    const ISSUERS: [(&str, usize); 17] = [
        ("4", 16),
        ("4", 13),
        ("4", 19),
        ("51", 16),
        ("55", 16),
        ("2221", 16),
        ("2720", 16),
        ("34", 15),
        ("37", 15),
        ("6011", 16),
        ("65", 16),
        ("3528", 16),
        ("3589", 16),
        ("36", 14),
        ("305", 14),
        ("62", 19),
        ("6759", 12),
    ];
    let (prefix, length) = ISSUERS.choose(random).expect("there are some");
    let mut card = (*prefix).to_owned();
    card += &random_digits(random, length - 1 - prefix.len());
    let sum: u32 = card
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, byte)| {
            let digit = u32::from(byte - b'0');
            // The last digit, which is not there yet, is not doubled: this one is.
            match place % 2 {
                0 if digit > 4 => 2 * digit - 9,
                0 => 2 * digit,
                _ => digit,
            }
        })
        .sum();
    card.push(char::from(b'0' + ((10 - sum % 10) % 10) as u8));
    card
}

fn random_digits(random: &mut StdRng, count: usize) -> String {
    let digit = |_| char::from(b'0' + random.random_range(0..10));
    (0..count).map(digit).collect()
}

/// A text with a card number in it, split and put as somebody might.
fn in_context(random: &mut StdRng, card: &str) -> String {
    const SEPARATORS: [&str; 6] = [" ", "-", "  ", " - ", "\u{a0}", "\u{2013}"];
    const IN_URLS: [&str; 4] = ["", "%20", "+", "%2D"];
    let words = split(random, card, &SEPARATORS);
    let in_url = split(random, card, &IN_URLS);
    let number = random.random_range(0..100_000);
    match random.random_range(0..12) {
        0 => words,
        1 => format!("paid with {words}, order {number}"),
        2 => format!("order {number}: {words} 12/27 {}", random_digits(random, 3)),
        3 => format!("GET /pay?pan={in_url}&n={number} HTTP/1.1"),
        4 => format!("https://shop.example/{number}/{in_url}#x"),
        5 => format!("/pay?q=%20{in_url}"),
        6 => format!(r#"{{"n":{number},"pan":"{words}"}}"#),
        7 => format!(r#"{{\"n\":{number},\"note\":\"\n{words}\"}}"#),
        8 => format!("x-card: {words}\r\nhost: shop"),
        9 => format!("PAN={words};n={number}"),
        10 => format!("[{number}, {words}]"),
        _ => format!("{card},{card}"),
    }
}

/// A card number with one of the separators between some of its digits: in the usual groups, in others, or in none.
fn split(random: &mut StdRng, card: &str, separators: &[&str]) -> String {
    let separator = separators.choose(random).expect("there are some");
    let way = random.random_range(0..4);
    let mut text = String::new();
    for (place, digit) in card.chars().enumerate() {
        let splits = match way {
            0 => false,
            1 => place % 4 == 0,
            2 => true,
            _ => random.random_bool(0.3),
        };
        if place > 0 && splits {
            text += separator;
        }
        text.push(digit);
    }
    text
}

/// An id or a timestamp.
fn id(random: &mut StdRng) -> String {
    let bits: u128 = random.random();
    let hex = format!("{bits:032x}");
    // From 2001 to 2033.
    let seconds = random.random_range(1_000_000_000_u64..2_000_000_000);
    match random.random_range(0..7) {
        0 | 1 => format!(
            "{}-{}-4{}-a{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[13..16],
            &hex[17..20],
            &hex[20..]
        ),
        2 => hex,
        // Without a letter it would be a number of 16 digits like any other.
        3 => format!(
            "{}{}",
            &hex[..15],
            ['a', 'b', 'c', 'd', 'e', 'f'][(bits % 6) as usize]
        ),
        4 => format!("{seconds}{}", random_digits(random, 3)),
        5 => format!("{seconds}{}", random_digits(random, 6)),
        _ => format!("{seconds}{}", random_digits(random, 9)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_for_is_what_was_hidden() {
        assert_eq!(digits("4%201-1 x1"), "4111");
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..100 {
            let card = card(&mut random);
            let text = in_context(&mut random, &card);
            assert!(digits(&text).contains(&card), "{card} in {text}");
        }
    }
}
