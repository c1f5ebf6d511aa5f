//! What a process prints that cannot be changed, as lines of a log.
//!
//! A line gets the level and the trace id that it carries, as far as they can be told; what is JSON already keeps its
//! fields. Nothing is left out but secrets.

mod guess;

use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::redact::{REDACTED, Redaction};

/// Names by which programs tell the level, the message, and the trace of a line that is JSON.
const LEVELS: [&str; 6] = [
    "level",
    "severity",
    "lvl",
    "levelname",
    "log.level",
    "@level",
];
const MESSAGES: [&str; 4] = ["message", "msg", "@message", "event"];
const TRACES: [&str; 5] = ["traceId", "trace_id", "trace.id", "traceid", "otelTraceID"];

/// Makes lines of a log of what a process prints.
///
/// ```
/// use sundown_telemetry::{Foreign, Redaction};
///
/// let foreign = Foreign::of("web", Redaction::default());
/// let line = foreign.line("[error] no stock, trace_id=4bf92f3577b34da6a3ce929d0e0e4736", &[("generation", 2.into())]);
/// let line: serde_json::Value = serde_json::from_slice(&line)?;
/// assert_eq!(line["level"], "ERROR");
/// assert_eq!(line["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
/// assert_eq!(line["generation"], 2);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug)]
pub struct Foreign {
    service: String,
    redaction: Redaction,
    guess: guess::Guess,
}

impl Foreign {
    /// Of this service, without these secrets.
    pub fn of(service: impl Into<String>, redaction: Redaction) -> Self {
        Self {
            service: service.into(),
            redaction,
            guess: guess::Guess::new(),
        }
    }

    /// Makes a JSON object, with a line feed behind it, of a line that was printed now, and of more that is known.
    pub fn line(&self, printed: &str, known: &[(&'static str, Value)]) -> Vec<u8> {
        let object = match serde_json::from_str(printed) {
            Ok(Value::Object(object)) => self.of_object(object),
            _ => self.of_text(printed),
        };
        let mut line = Line::begin(SystemTime::now());
        line.field("level", &object.level.into());
        line.field("service", &self.service.as_str().into());
        line.field("message", &object.message);
        if let Some(trace) = object.trace {
            line.field("traceId", &trace.into());
        }
        for (name, value) in known {
            line.field(name, value);
        }
        let is_ours = |name: &str| {
            let every = ["@timestamp", "level", "service", "message", "traceId"];
            every.contains(&name) || known.iter().any(|(known, _)| *known == name)
        };
        for (name, value) in object.others {
            match is_ours(&name) {
                true => line.field(&format!("field.{name}"), &value),
                false => line.field(&name, &value),
            }
        }
        line.end()
    }

    fn of_text(&self, printed: &str) -> Told {
        Told {
            level: self.guess.level(printed),
            message: self.redaction.redact(printed).into(),
            trace: self.guess.trace(printed),
            others: Map::new(),
        }
    }

    fn of_object(&self, mut object: Map<String, Value>) -> Told {
        let mut take = |names: &[&str]| names.iter().find_map(|name| object.remove(*name));
        let level = take(&LEVELS).and_then(|level| guess::named(&level));
        let message = take(&MESSAGES).unwrap_or_else(|| "".into());
        let trace = take(&TRACES).map(|trace| match trace {
            Value::String(trace) => trace,
            other => other.to_string(),
        });
        let clean = object
            .into_iter()
            .map(|(name, value)| (name.clone(), self.clean(&name, value)));
        Told {
            level: level.unwrap_or("INFO"),
            message: self.clean("message", message),
            trace,
            others: clean.collect(),
        }
    }

    /// Takes secrets out of a value, however deep.
    fn clean(&self, name: &str, value: Value) -> Value {
        match value {
            Value::String(_) if self.redaction.hides(name) => REDACTED.into(),
            Value::String(text) => self.redaction.redact(&text).into(),
            Value::Array(values) => {
                let values = values.into_iter();
                values.map(|value| self.clean(name, value)).collect()
            }
            Value::Object(object) => {
                let fields = object.into_iter().map(|(name, value)| {
                    let value = self.clean(&name, value);
                    (name, value)
                });
                Value::Object(fields.collect())
            }
            other => other,
        }
    }
}

/// What a line tells.
struct Told {
    level: &'static str,
    message: Value,
    trace: Option<String>,
    others: Map<String, Value>,
}

/// A JSON object that is written in order.
struct Line(Vec<u8>);

impl Line {
    fn begin(now: SystemTime) -> Self {
        let now = humantime::format_rfc3339_micros(now);
        Self(format!("{{\"@timestamp\":\"{now}\"").into_bytes())
    }

    fn field(&mut self, name: &str, value: &Value) {
        self.0.push(b',');
        serde_json::to_writer(&mut self.0, name).expect("text can be written to memory");
        self.0.push(b':');
        serde_json::to_writer(&mut self.0, value).expect("a value can be written to memory");
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"}\n");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(printed: &str) -> Value {
        let foreign = Foreign::of("web", Redaction::default());
        let line = foreign.line(printed, &[("stream", "stderr".into())]);
        let mut line: Value = serde_json::from_slice(&line).unwrap();
        line.as_object_mut().unwrap().remove("@timestamp").unwrap();
        line
    }

    #[test]
    fn a_line_of_text_is_a_message() {
        let expected = json!({
            "level": "INFO", "service": "web", "message": "card [redacted]", "stream": "stderr",
        });
        assert_eq!(line("card 4111 1111 1111 1111"), expected);
    }

    #[test]
    fn a_line_that_is_an_object_keeps_its_fields() {
        let printed = r#"{"level":40,"time":1764230000000,"msg":"slow","trace_id":"ab12","stream":"x",
                          "req":{"headers":{"cookie":"a=b","host":"h"}},"service":"other"}"#;
        let expected = json!({
            "level": "WARN", "service": "web", "message": "slow", "traceId": "ab12", "stream": "stderr",
            "time": 1764230000000_u64, "req": {"headers": {"cookie": "[redacted]", "host": "h"}},
            "field.service": "other", "field.stream": "x",
        });
        assert_eq!(line(printed), expected);
    }

    #[test]
    fn what_only_looks_like_an_object_is_text() {
        for printed in ["{", "[1]", "", "12", "{\"a\":1} and more"] {
            assert_eq!(line(printed)["message"], printed);
        }
    }
}
