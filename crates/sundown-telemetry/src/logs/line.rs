//! *Decides* how a line looks.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{Context, SpanId, TraceId};
use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata};

use super::Format;
use crate::redact::{REDACTED, Redaction};

/// What is the same in all lines of a log.
pub(super) struct Style {
    format: Format,
    service: String,
    /// The service's name as JSON.
    service_json: Vec<u8>,
    redaction: Redaction,
}

/// Names by which JSON lines say what every line has.
struct Names {
    level: &'static str,
    service: &'static str,
    target: &'static str,
    trace: &'static str,
    span: &'static str,
}

const PLAIN: Names = Names {
    level: "level",
    service: "service",
    target: "target",
    trace: "traceId",
    span: "spanId",
};

const ECS: Names = Names {
    level: "log.level",
    service: "service.name",
    target: "log.logger",
    trace: "trace.id",
    span: "span.id",
};

/// Bytes of a text that are kept; who reads logs for others has limits, too.
const LONGEST_TEXT: usize = 32 << 10;

/// Bytes of a line beyond which no more fields are added.
const LONGEST_LINE: usize = 128 << 10;

const TIMESTAMP: &str = "@timestamp";
const MESSAGE: &str = "message";

/// Fields as they will be written, and where each ends.
#[derive(Default)]
pub(super) struct Fields {
    bytes: Vec<u8>,
    ends: Vec<(&'static str, usize)>,
}

/// The span that a line comes of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids {
    trace: TraceId,
    span: SpanId,
}

impl Ids {
    /// Of the span that this thread is in, if it is traced.
    pub(super) fn current() -> Option<Self> {
        Context::map_current(|context| {
            let span = context.span();
            let span = span.span_context();
            span.is_valid().then(|| Self {
                trace: span.trace_id(),
                span: span.span_id(),
            })
        })
    }
}

/// Buffers for a line; kept, so that the next one needs none.
#[derive(Default)]
pub(super) struct Scratch {
    fields: Fields,
    message: Vec<u8>,
    text: String,
    names: Vec<&'static str>,
    clock: Clock,
    pub(super) line: Vec<u8>,
}

/// The text of the last second that was asked for: of most lines it is the same as of the one before.
#[derive(Default)]
struct Clock {
    second: u64,
    text: String,
}

impl Style {
    pub(super) fn new(format: Format, service: &str, redaction: Redaction) -> Self {
        let mut service_json = Vec::new();
        write_json(&mut service_json, service);
        Self {
            format,
            service: service.to_owned(),
            service_json,
            redaction,
        }
    }

    fn names(&self) -> &'static Names {
        match self.format {
            Format::Ecs => &ECS,
            Format::Json | Format::Human => &PLAIN,
        }
    }

    /// Adds what is recorded to fields.
    pub(super) fn add(&self, fields: &mut Fields, record: impl FnOnce(&mut dyn Visit)) {
        let (mut message, mut text) = (Vec::new(), String::new());
        record(&mut Writing {
            style: self,
            fields,
            message: &mut message,
            text: &mut text,
        });
    }

    /// Renders an event into `scratch.line`; `spans` are the fields of the spans around it, the innermost first.
    pub(super) fn render<'a>(
        &self,
        scratch: &mut Scratch,
        metadata: &Metadata<'_>,
        ids: Option<Ids>,
        record: impl FnOnce(&mut dyn Visit),
        spans: impl FnOnce(&mut dyn FnMut(&Fields)) + 'a,
    ) {
        let Scratch {
            fields,
            message,
            text,
            names,
            clock,
            line,
        } = scratch;
        fields.clear();
        message.clear();
        names.clear();
        line.clear();
        record(&mut Writing {
            style: self,
            fields,
            message,
            text,
        });
        self.begin(line, clock, *metadata.level(), ids, metadata.target());
        match self.format {
            Format::Human => {
                line.extend_from_slice(message);
            }
            Format::Json | Format::Ecs => {
                line.extend_from_slice(b",\"message\":");
                let nothing: &[u8] = b"\"\"";
                line.extend_from_slice(if message.is_empty() { nothing } else { message });
            }
        }
        if let Some(ids) = ids {
            if self.format == Format::Human {
                let _ = write!(line, " {}={}", self.names().trace, ids.trace);
            }
            names.extend([self.names().trace, self.names().span]);
        }
        let mut whole = fields.append_to(line, names);
        spans(&mut |outer| whole &= outer.append_to(line, names));
        if !whole {
            let cut: &[u8] = match self.format {
                Format::Human => b" truncated=true",
                Format::Json | Format::Ecs => b",\"truncated\":true",
            };
            line.extend_from_slice(cut);
        }
        self.end(line);
    }

    /// The line that tells how many were lost.
    pub(super) fn loss_notice(&self, lost: u64) -> Vec<u8> {
        let mut line = Vec::new();
        let mut clock = Clock::default();
        self.begin(&mut line, &mut clock, Level::WARN, None, module_path!());
        let text =
            "log lines were lost: the log could not be written as fast as it grew, or not at all";
        // Nobody reads the result of writing to memory.
        let _ = match self.format {
            Format::Human => write!(line, "{text} lost={lost}"),
            Format::Json | Format::Ecs => write!(line, ",\"message\":\"{text}\",\"lost\":{lost}"),
        };
        self.end(&mut line);
        line
    }

    fn begin(
        &self,
        line: &mut Vec<u8>,
        clock: &mut Clock,
        level: Level,
        ids: Option<Ids>,
        target: &str,
    ) {
        let names = self.names();
        if self.format == Format::Human {
            clock.write_now(line);
            let _ = write!(line, " {level:>5} {} {target}: ", self.service);
            return;
        }
        write_all(line, &["{\"", TIMESTAMP, "\":\""]);
        clock.write_now(line);
        write_all(line, &["\",\"", names.level, "\":\""]);
        match self.format {
            Format::Ecs => {
                let level = level.as_str().to_ascii_lowercase();
                write_all(line, &[&level, "\",\"ecs.version\":\"8.11.0"]);
            }
            Format::Json | Format::Human => write_all(line, &[level.as_str()]),
        }
        write_all(line, &["\",\"", names.service, "\":"]);
        line.extend_from_slice(&self.service_json);
        if let Some(Ids { trace, span }) = ids {
            let _ = write!(
                line,
                ",\"{}\":\"{trace}\",\"{}\":\"{span}\"",
                names.trace, names.span
            );
        }
        write_all(line, &[",\"", names.target, "\":"]);
        write_json(line, target);
    }

    fn end(&self, line: &mut Vec<u8>) {
        if self.format != Format::Human {
            line.push(b'}');
        }
        line.push(b'\n');
    }

    /// By which name a field is written: one that every line has is another's.
    fn name(&self, name: &'static str) -> &'static str {
        let names = self.names();
        match name {
            "traceId" | "trace_id" => names.trace,
            "spanId" | "span_id" => names.span,
            TIMESTAMP => "field.@timestamp",
            "level" => "field.level",
            "service" => "field.service",
            "target" => "field.target",
            other => other,
        }
    }
}

impl Fields {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Appends those whose names are not there yet, and of two of one name the later; tells if there was room for all.
    fn append_to(&self, line: &mut Vec<u8>, names: &mut Vec<&'static str>) -> bool {
        let own = names.len();
        let mut start = 0;
        for (place, &(name, end)) in self.ends.iter().enumerate() {
            let field = start..end;
            start = end;
            let is_again = |later: &(&str, usize)| later.0 == name;
            if names[..own].contains(&name) || self.ends[place + 1..].iter().any(is_again) {
                continue;
            }
            if line.len() + field.len() > LONGEST_LINE {
                return false;
            }
            line.extend_from_slice(&self.bytes[field]);
            names.push(name);
        }
        true
    }
}

impl Clock {
    /// Writes the time: RFC 3339, to the microsecond, UTC.
    fn write_now(&mut self, line: &mut Vec<u8>) {
        let now = SystemTime::now();
        let since = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        if self.text.is_empty() || self.second != since.as_secs() {
            self.second = since.as_secs();
            self.text.clear();
            let second = SystemTime::UNIX_EPOCH + Duration::from_secs(self.second);
            let _ = write!(self.text, "{}", humantime::format_rfc3339_seconds(second));
            self.text.pop();
        }
        line.extend_from_slice(self.text.as_bytes());
        let mut rest = since.subsec_micros();
        let mut digits = *b".000000Z";
        for digit in digits[1..7].iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        line.extend_from_slice(&digits);
    }
}

/// Renders fields as they are visited.
struct Writing<'a> {
    style: &'a Style,
    fields: &'a mut Fields,
    message: &'a mut Vec<u8>,
    text: &'a mut String,
}

impl Writing<'_> {
    /// Writes a field by what writes its value.
    fn field(&mut self, field: &Field, value: impl FnOnce(&mut Vec<u8>)) {
        let bytes = &mut self.fields.bytes;
        let name = self.style.name(field.name());
        match self.style.format {
            Format::Human => {
                bytes.push(b' ');
                bytes.extend_from_slice(name.as_bytes());
                bytes.push(b'=');
            }
            Format::Json | Format::Ecs => {
                bytes.push(b',');
                write_json(bytes, name);
                bytes.push(b':');
            }
        }
        value(bytes);
        self.fields.ends.push((name, self.fields.bytes.len()));
    }

    fn text(&mut self, field: &Field, text: &str) {
        let mut text = Cow::Borrowed(text);
        if text.len() > LONGEST_TEXT {
            let kept = text.floor_char_boundary(LONGEST_TEXT);
            text = format!("{} [{} bytes more]", &text[..kept], text.len() - kept).into();
        }
        let text = &*text;
        let (name, redaction) = (field.name(), &self.style.redaction);
        // What tracing-log says of where a record came from the line has by other names.
        // So does a library that names the service which every line names.
        if name.starts_with("log.") || name == "service" && text == self.style.service {
            return;
        }
        let human = self.style.format == Format::Human;
        if name == MESSAGE {
            let clean = redaction.redact(text);
            self.message.clear();
            match human {
                true => write_human(self.message, &clean, false),
                false => write_json(self.message, &clean),
            }
            return;
        }
        let clean = match name {
            "traceId" | "trace_id" | "spanId" | "span_id" => text.into(),
            name if redaction.hides(name) => REDACTED.into(),
            _ => redaction.redact(text),
        };
        self.field(field, |bytes| match human {
            true => write_human(bytes, &clean, true),
            false => write_json(bytes, &clean),
        });
    }

    fn number(&mut self, field: &Field, number: impl Serialize) {
        if !field.name().starts_with("log.") {
            self.field(field, |bytes| {
                serde_json::to_writer(bytes, &number).expect("a number can be written to memory");
            });
        }
    }
}

impl Visit for Writing<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut bounded = Bounded {
            text: std::mem::take(self.text),
            more: 0,
        };
        bounded.text.clear();
        let _ = write!(bounded, "{value:?}");
        if bounded.more > 0 {
            let _ = write!(bounded.text, " [{} bytes more]", bounded.more);
        }
        self.text(field, &bounded.text);
        *self.text = bounded.text;
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.number(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match value.is_finite() {
            true => self.number(field, value),
            // JSON has no number for it.
            false => self.text(field, &value.to_string()),
        }
    }
}

/// Keeps the beginning of what is written.
struct Bounded {
    text: String,
    /// How many bytes were left out.
    more: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        // Less than a text may have, so that what is said of the rest fits in, too.
        let room = (LONGEST_TEXT - 64).saturating_sub(self.text.len());
        let kept = if self.more > 0 {
            0
        } else {
            more.floor_char_boundary(room)
        };
        self.text.push_str(&more[..kept]);
        self.more += more.len() - kept;
        Ok(())
    }
}

fn write_all(bytes: &mut Vec<u8>, texts: &[&str]) {
    for text in texts {
        bytes.extend_from_slice(text.as_bytes());
    }
}

fn write_json(bytes: &mut Vec<u8>, text: &str) {
    let is_plain = |byte: &u8| *byte >= b' ' && *byte != b'"' && *byte != b'\\';
    match text.as_bytes().iter().all(is_plain) {
        true => write_all(bytes, &["\"", text, "\""]),
        false => serde_json::to_writer(bytes, text).expect("text can be written to memory"),
    }
}

/// Writes so that no text can end a line or move a terminal's cursor.
fn write_human(bytes: &mut Vec<u8>, text: &str, is_value: bool) {
    let plain = !text.is_empty() && !text.contains([' ', '"', '=']) || !is_value;
    let _ = match plain && !text.contains(char::is_control) {
        true => bytes.write_all(text.as_bytes()),
        false if is_value => write!(bytes, "{text:?}"),
        false => write!(bytes, "{}", text.escape_debug()),
    };
}
