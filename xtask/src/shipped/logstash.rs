//! *Decides* what Logstash makes of what Filebeat sends it, by its settings, as its documentation says (9.2).
//!
//! It is not Logstash. A filter that is not known here is an error.

use anyhow::{Context as _, ensure};

use super::filebeat::{Document, day};

/// What comes behind the name of an index: its day.
const DAY: &str = "%{+YYYY.MM.dd}";

/// What the settings say of events.
pub(super) struct Logstash {
    removed: Vec<String>,
    index: String,
}

impl Logstash {
    /// Reads the settings of a pipeline.
    ///
    /// # Errors
    /// When they say what is not known here.
    pub(super) fn read(settings: &str) -> anyhow::Result<Self> {
        let said = |option: &str| {
            let lines = settings.lines().map(str::trim);
            let mut values = lines.filter_map(|line| {
                let (name, value) = line.split_once("=>")?;
                (name.trim() == option).then(|| value.trim())
            });
            values
                .next()
                .with_context(|| format!("there is no {option}"))
        };
        let (_, filters) = settings
            .split_once("filter {")
            .context("there is no filter")?;
        let (filters, _) = filters
            .split_once("output {")
            .context("there is no output")?;
        let lines = filters.lines().map(str::trim);
        let mut lines = lines.filter(|line| !line.is_empty());
        let is_mutate = lines.next() == Some("mutate {");
        let option = lines.next().unwrap_or_default();
        ensure!(
            is_mutate && option.starts_with("remove_field =>") && lines.all(|line| line == "}"),
            "more is done than to remove fields"
        );
        ensure!(said("enrich")? == "\"none\"", "the input adds to events");
        ensure!(said("action")? == "\"create\"", "documents are not created");
        ensure!(
            said("manage_template")? == "false",
            "it puts a template of its own"
        );
        let index: String = serde_json::from_str(said("index")?)?;
        Ok(Self {
            removed: serde_json::from_str(said("remove_field")?)?,
            index: index
                .strip_suffix(DAY)
                .with_context(|| format!("the index does not end in {DAY}"))?
                .to_owned(),
        })
    }

    /// What it sends on.
    pub(super) fn pass(&self, document: &Document) -> Document {
        let mut fields = document.fields.clone();
        fields.insert("@version".into(), "1".into());
        for name in &self.removed {
            fields.remove(name);
        }
        Document {
            index: format!("{}{}", self.index, day(&fields)),
            fields,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::*;

    const SETTINGS: &str = r#"
input {
  beats {
    enrich => "none"
  }
}
filter {
  mutate {
    remove_field => ["@version"]
  }
}
output {
  elasticsearch {
    index => "lines-%{+YYYY.MM.dd}"
    action => "create"
    manage_template => false
  }
}
"#;

    #[test]
    fn a_document_goes_on_as_it_came() {
        let logstash = Logstash::read(SETTINGS).unwrap();
        let time = Value::from("2026-01-02T03:04:05.678Z");
        let fields = Map::from_iter([("@timestamp".to_owned(), time)]);
        let index = "direct-2026.01.02".to_owned();
        let passed = logstash.pass(&Document {
            index,
            fields: fields.clone(),
        });
        assert_eq!(passed.index, "lines-2026.01.02");
        assert_eq!(passed.fields, fields);
    }

    #[test]
    fn filters_that_are_not_known_are_an_error() {
        let odd = SETTINGS.replace("mutate {", "ruby {");
        assert!(Logstash::read(&odd).is_err());
        let more = SETTINGS.replace("  }\n}\noutput", "  }\n  drop { }\n}\noutput");
        assert!(Logstash::read(&more).is_err());
        let updates = SETTINGS.replace("create", "index");
        assert!(Logstash::read(&updates).is_err());
    }
}
