//! *Decides* what Grafana Alloy would tell Loki of a line, by the stages of its settings.
//!
//! It is not Alloy, and of its language no more than those stages.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// The stages that a line goes through.
pub(super) struct Alloy {
    /// Names, and the names in the line.
    taken: BTreeMap<String, String>,
    time: String,
    labels: BTreeMap<String, String>,
    metadata: BTreeMap<String, String>,
}

/// What Loki would be told.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) metadata: BTreeMap<String, String>,
}

impl Alloy {
    /// Reads its settings.
    ///
    /// # Errors
    /// When one of the stages is missing, or is written in a way that is not known here.
    pub(super) fn read(settings: &str) -> anyhow::Result<Self> {
        ensure!(
            settings.matches("stage.").count() == 4,
            "there are not four stages"
        );
        let mut taken = BTreeMap::new();
        for (name, expression) in pairs(block(settings, "stage.json")?)? {
            taken.insert(name, member(&expression)?);
        }
        let time = pairs(block(settings, "stage.timestamp")?)?;
        ensure!(
            time.get("format")
                .is_some_and(|format| format == "RFC3339Nano")
        );
        Ok(Self {
            taken,
            time: time.get("source").context("no source of the time")?.clone(),
            labels: pairs(block(settings, "stage.labels")?)?,
            metadata: pairs(block(settings, "stage.structured_metadata")?)?,
        })
    }

    /// What becomes of a line.
    ///
    /// # Errors
    /// When it has no time, or lacks a label.
    pub(super) fn entry(&self, line: &Value) -> anyhow::Result<Entry> {
        let find = |name: &str| line[self.taken.get(name)?].as_str().map(str::to_owned);
        // It is called as it was taken, unless something is said.
        let source = |name: &str, source: &str| match source {
            "" => find(name),
            source => find(source),
        };
        let time = find(&self.time).with_context(|| format!("there is no {}", self.time))?;
        humantime::parse_rfc3339(&time)?;
        let labels = self.labels.iter().map(|(name, from)| {
            let value = source(name, from).with_context(|| format!("there is no {name}"))?;
            Ok((name.clone(), value))
        });
        let metadata = self.metadata.iter();
        Ok(Entry {
            labels: labels.collect::<anyhow::Result<_>>()?,
            metadata: metadata
                .filter_map(|(name, from)| Some((name.clone(), source(name, from)?)))
                .collect(),
        })
    }
}

/// What is between the braces of a block.
fn block<'a>(settings: &'a str, name: &str) -> anyhow::Result<&'a str> {
    let open = format!("{name} {{");
    let (_, rest) = settings
        .split_once(&open)
        .with_context(|| format!("there is no {name}"))?;
    let mut depth = 1;
    for (place, letter) in rest.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok(&rest[..place]);
        }
    }
    bail!("{name} has no end")
}

/// All `name = "text"` in there, one a line.
fn pairs(block: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let lines = block.lines().filter_map(|line| line.split_once('='));
    let texts = lines.filter(|(_, text)| text.trim() != "{");
    let read = texts.map(|(name, text)| {
        let text = text.trim().trim_end_matches(',');
        let text = serde_json::from_str(text).with_context(|| format!("{text} is no text"))?;
        Ok((name.trim().to_owned(), text))
    });
    read.collect()
}

/// The member that a JMESPath expression of one name picks: what is no plain name stands in quotes.
fn member(expression: &str) -> anyhow::Result<String> {
    if let Some(quoted) = expression.strip_prefix('"') {
        let name = quoted.strip_suffix('"').context("a quote has no end")?;
        return Ok(name.to_owned());
    }
    let plain = |letter: char| letter == '_' || letter.is_ascii_alphanumeric();
    ensure!(
        expression.chars().all(plain),
        "{expression} is no name: it must be in quotes"
    );
    Ok(expression.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const STAGES: &str = r#"
  stage.json {
    expressions = {
      time = "\"@timestamp\"",
      level = "level",
      trace_id = "traceId",
    }
  }
  stage.timestamp {
    source = "time"
    format = "RFC3339Nano"
  }
  stage.labels { values = {
      level = "",
  } }
  stage.structured_metadata { values = {
      trace = "trace_id",
  } }
"#;

    #[test]
    fn a_line_has_labels_and_metadata() {
        let alloy = Alloy::read(STAGES).unwrap();
        let line =
            json!({"@timestamp": "2026-01-02T03:04:05.678901Z", "level": "INFO", "traceId": "ab"});
        let entry = alloy.entry(&line).unwrap();
        assert_eq!(
            entry.labels,
            BTreeMap::from([("level".into(), "INFO".into())])
        );
        assert_eq!(
            entry.metadata,
            BTreeMap::from([("trace".into(), "ab".into())])
        );
    }

    #[test]
    fn a_line_without_a_label_or_a_time_is_told() {
        let alloy = Alloy::read(STAGES).unwrap();
        let error = alloy.entry(&json!({"level": "INFO"})).unwrap_err();
        assert!(error.to_string().contains("time"), "{error}");
        let line = json!({"@timestamp": "2026-01-02T03:04:05Z"});
        let error = alloy.entry(&line).unwrap_err();
        assert!(error.to_string().contains("level"), "{error}");
    }

    #[test]
    fn a_name_that_needs_quotes_is_an_error_without() {
        let bare = STAGES.replace(r#""\"@timestamp\"""#, r#""@timestamp""#);
        assert!(Alloy::read(&bare).is_err());
    }
}
