//! *Decides* what level a line has and which trace it belongs to, where it says so in one of the usual ways.

use regex::Regex;
use serde_json::Value;

/// How far into a line its level is looked for: behind a time, a name and a place in the source.
const HEAD: usize = 160;

/// Words for levels, in lower case.
const WORDS: [(&str, &str); 20] = [
    ("trace", "TRACE"),
    ("verbose", "TRACE"),
    ("debug", "DEBUG"),
    ("dbg", "DEBUG"),
    ("info", "INFO"),
    ("inf", "INFO"),
    ("information", "INFO"),
    ("notice", "INFO"),
    ("warn", "WARN"),
    ("wrn", "WARN"),
    ("warning", "WARN"),
    ("error", "ERROR"),
    ("err", "ERROR"),
    ("severe", "ERROR"),
    ("critical", "ERROR"),
    ("crit", "ERROR"),
    ("fatal", "ERROR"),
    ("alert", "ERROR"),
    ("emerg", "ERROR"),
    ("panic", "ERROR"),
];

/// How runtimes begin to tell of what nobody has caught.
const CRASHES: [&str; 6] = [
    "Traceback (most recent call last)",
    "panic: ",
    "fatal error: ",
    "Exception in thread ",
    "Uncaught ",
    "thread '",
];

/// Expressions for both.
#[derive(Debug)]
pub(super) struct Guess {
    level: Regex,
    trace: Regex,
}

impl Guess {
    pub(super) fn new() -> Self {
        let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
        let words = words.join("|");
        // As a value of its name; within brackets; in capitals; in front of a colon where a line or a word of it begins.
        let level = format!(
            r#"(?i:\b(?:level|lvl|severity|levelname)["']?\s*[=:]\s*["']?({words})\b)|(?i:[\[<(]\s*({words})\s*[\])>])|\b({capitals})\b|(?:^|\s)(?i:({words})):"#,
            capitals = words.to_uppercase()
        );
        // By name, as traceparent (W3C), or as Spring has it: [service,trace,span].
        let trace = r#"(?i)(?:\btrace[._-]?id["'\\]*\s*[=:]\s*["'\\]*|\btraceparent["'\\]*\s*[=:]\s*["'\\]*00-|\[[\w.-]*,)([0-9a-f]{32}|[0-9a-f]{16}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b"#;
        let compile = |expression: &str| Regex::new(expression).expect("it is an expression");
        Self {
            level: compile(&level),
            trace: compile(trace),
        }
    }

    /// INFO, unless it says otherwise.
    pub(super) fn level(&self, line: &str) -> &'static str {
        let head = &line[..line.floor_char_boundary(HEAD)];
        if CRASHES.iter().any(|crash| head.starts_with(crash)) {
            return "ERROR";
        }
        if let Some(level) = of_klog(head) {
            return level;
        }
        let found = self.level.captures(head);
        let word = found.and_then(|found| found.iter().skip(1).flatten().next());
        word.and_then(|word| of_word(word.as_str()))
            .unwrap_or("INFO")
    }

    /// The trace id, without dashes.
    pub(super) fn trace(&self, line: &str) -> Option<String> {
        let found = self.trace.captures(line)?;
        Some(found[1].replace('-', "").to_ascii_lowercase())
    }
}

/// The level that a field tells: a word, or a number as pino and bunyan have it.
pub(super) fn named(level: &Value) -> Option<&'static str> {
    match level {
        Value::String(word) => of_word(word),
        Value::Number(number) => Some(match number.as_u64()? {
            0..20 => "TRACE",
            20..30 => "DEBUG",
            30..40 => "INFO",
            40..50 => "WARN",
            50.. => "ERROR",
        }),
        _ => None,
    }
}

fn of_word(word: &str) -> Option<&'static str> {
    let mut words = WORDS.iter();
    let found = words.find(|(known, _)| known.eq_ignore_ascii_case(word));
    found.map(|(_, level)| *level)
}

/// What Kubernetes' components print: `E1127 07:30:00.000000`.
fn of_klog(head: &str) -> Option<&'static str> {
    let (&[level, ref date @ .., b' '], _) = head.as_bytes().split_first_chunk::<6>()? else {
        return None;
    };
    if !date.iter().all(u8::is_ascii_digit) {
        return None;
    }
    match level {
        b'I' => Some("INFO"),
        b'W' => Some("WARN"),
        b'E' | b'F' => Some("ERROR"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_ways_to_tell_a_level_are_understood() {
        let table = [
            (
                "2026/11/27 07:30:00 [error] 12#12: *3 open() failed",
                "ERROR",
            ),
            (
                "[2026-11-27 07:30:00 +0000] [7] [INFO] Booting worker",
                "INFO",
            ),
            ("2026-11-27 07:30:00,123 WARNING app.orders slow", "WARN"),
            ("WARN  [main] o.e.jetty.server", "WARN"),
            ("time=2026-11-27T07:30:00Z level=debug msg=x", "DEBUG"),
            (r#"ts=1 "severity":"critical" x"#, "ERROR"),
            ("error: no such file", "ERROR"),
            ("E1127 07:30:00.000000   12 x.go:3] failed", "ERROR"),
            ("panic: runtime error: index out of range", "ERROR"),
            ("Traceback (most recent call last):", "ERROR"),
            ("thread 'main' panicked at src/main.rs:1:1:", "ERROR"),
            ("07:30:00 TRC entered", "INFO"),
            ("an error occurred, said the information desk", "INFO"),
            ("GET /errors?level=x 200", "INFO"),
            ("", "INFO"),
        ];
        let guess = Guess::new();
        for (line, level) in table {
            assert_eq!(guess.level(line), level, "{line}");
        }
    }

    #[test]
    fn a_trace_id_is_found_by_its_name_or_its_place() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let table = [
            (format!("trace_id={id} x"), Some(id)),
            (format!(r#"x "traceId": "{id}""#), Some(id)),
            (
                format!(r#"x \"trace.id\":\"{}\""#, id.to_uppercase()),
                Some(id),
            ),
            (
                format!("traceparent: 00-{id}-00f067aa0ba902b7-01"),
                Some(id),
            ),
            (format!("INFO [shop,{id},00f067aa0ba902b7] x"), Some(id)),
            (
                "trace-id: 4bf92f35-77b3-4da6-a3ce-929d0e0e4736".to_owned(),
                Some(id),
            ),
            (
                "traceid=00f067aa0ba902b7".to_owned(),
                Some("00f067aa0ba902b7"),
            ),
            (format!("trace_id={id}0"), None),
            (format!("order {id}"), None),
        ];
        let guess = Guess::new();
        for (line, trace) in table {
            assert_eq!(guess.trace(&line).as_deref(), trace, "{line}");
        }
    }

    #[test]
    fn levels_by_number_and_by_word_are_named() {
        for (level, expected) in [
            (30.into(), Some("INFO")),
            (60.into(), Some("ERROR")),
            ("Warning".into(), Some("WARN")),
            ("loud".into(), None),
            (Value::Null, None),
        ] {
            assert_eq!(named(&level), expected, "{level}");
        }
    }
}
