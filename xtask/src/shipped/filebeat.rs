//! *Decides* what Filebeat makes of a line, by its settings, as its documentation and sources say (9.2).
//!
//! It is not Filebeat. Parsers and processors that are not known here are an error.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Map, Value, json};

/// What comes behind the name of an index: its day.
const DAY: &str = "%{+yyyy.MM.dd}";

/// What the settings say of lines.
pub(super) struct Filebeat {
    overwrites: bool,
    tells_host: bool,
    dropped: Vec<String>,
    added: Map<String, Value>,
    index: String,
}

/// What is sent to Elasticsearch.
pub(super) struct Document {
    pub(super) index: String,
    pub(super) fields: Map<String, Value>,
}

impl Filebeat {
    /// Reads `filebeat.yml`.
    ///
    /// # Errors
    /// When it is no YAML, or says what is not known here.
    pub(super) fn read(yaml: &str) -> anyhow::Result<Self> {
        let settings: Value = serde_saphyr::from_str(yaml)?;
        let [input] = &list(&settings["filebeat.inputs"])[..] else {
            bail!("there is not one input");
        };
        ensure!(
            list(&input["parsers"]).len() == 1,
            "there is not one parser"
        );
        let unknown = ["processors", "exclude_lines", "include_lines", "pipeline"];
        ensure!(
            unknown.iter().all(|name| input.get(name).is_none()),
            "the input does more than is known here"
        );
        let parser = &input["parsers"][0]["ndjson"];
        ensure!(parser["target"] == "", "fields are not flat");
        ensure!(parser["expand_keys"] == false, "names would be taken apart");
        ensure!(parser["add_error_key"] == false, "error would be an object");
        let mut read = Self {
            overwrites: parser["overwrite_keys"] == true,
            tells_host: input["publisher_pipeline.disable_host"] != true,
            dropped: Vec::new(),
            added: Map::new(),
            index: String::new(),
        };
        for processor in list(&settings["processors"]) {
            let (name, options) = processor
                .as_object()
                .and_then(|processor| processor.iter().next())
                .context("a processor has no name")?;
            match name.as_str() {
                "drop_fields" => read.dropped.extend(words(&options["fields"])),
                "add_fields" if options["target"] == "" => {
                    let fields = options["fields"].as_object().cloned();
                    read.added.extend(fields.unwrap_or_default());
                }
                other => bail!("the processor {other} is not known here"),
            }
        }
        let output = &settings["output.elasticsearch"];
        let index = output["index"].as_str().unwrap_or_default();
        read.index = index
            .strip_suffix(DAY)
            .with_context(|| format!("the index does not end in {DAY}"))?
            .to_owned();
        Ok(read)
    }

    /// What becomes of a line that it has read at some place of a file.
    pub(super) fn document(&self, line: &str, file: &Path, offset: usize) -> Document {
        let mut at = SystemTime::now();
        let mut fields = Map::new();
        let log = json!({"offset": offset, "file": {"path": file}});
        fields.insert("log".into(), log);
        fields.insert("input".into(), json!({"type": "filestream"}));
        match serde_json::from_str::<Map<String, Value>>(line) {
            Ok(keys) => self.merge(&mut fields, keys, &mut at),
            Err(_) => drop(fields.insert("message".into(), line.into())),
        }
        // Its own win.
        let agent = json!({"type": "filebeat", "version": "9.2.0", "name": "here"});
        fields.insert("agent".into(), agent);
        fields.insert("ecs".into(), json!({"version": "8.0.0"}));
        if self.tells_host {
            fields.insert("host".into(), json!({"name": "here"}));
        }
        for path in &self.dropped {
            drop_field(&mut fields, path);
        }
        fields.extend(self.added.clone());
        let at = humantime::format_rfc3339_millis(at).to_string();
        fields.insert("@timestamp".into(), at.into());
        Document {
            index: format!("{}{}", self.index, day(&fields)),
            fields,
        }
    }

    /// Puts the names of a line among those that are there.
    fn merge(
        &self,
        fields: &mut Map<String, Value>,
        line: Map<String, Value>,
        at: &mut SystemTime,
    ) {
        for (name, value) in line {
            let text = value.as_str().unwrap_or_default();
            match name.as_str() {
                "@timestamp" | "@metadata" if !self.overwrites => {}
                "@metadata" => {}
                "@timestamp" => *at = humantime::parse_rfc3339(text).unwrap_or(*at),
                "type" if text.is_empty() || text.starts_with('_') => {}
                _ if !self.overwrites && fields.contains_key(&name) => {}
                _ => drop(fields.insert(name, value)),
            }
        }
    }
}

/// The day of an event, as it stands in the name of an index.
pub(super) fn day(fields: &Map<String, Value>) -> String {
    let time = fields["@timestamp"].as_str().unwrap_or_default();
    time.get(..10).unwrap_or(time).replace('-', ".")
}

/// Drops `name` or `name.name`.
fn drop_field(fields: &mut Map<String, Value>, path: &str) {
    match path.split_once('.') {
        None => drop(fields.remove(path)),
        Some((outer, rest)) => {
            if let Some(inner) = fields.get_mut(outer).and_then(Value::as_object_mut) {
                drop_field(inner, rest);
            }
        }
    }
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn words(value: &Value) -> Vec<String> {
    let words = list(value).into_iter();
    words
        .filter_map(|word| Some(word.as_str()?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &str = "
filebeat.inputs:
  - publisher_pipeline.disable_host: true
    parsers:
      - ndjson: {target: '', overwrite_keys: true, add_error_key: false, expand_keys: false}
processors:
  - drop_fields: {fields: [agent, ecs, input, log.offset]}
  - add_fields: {target: '', fields: {node: one}}
output.elasticsearch: {index: 'lines-%{+yyyy.MM.dd}'}
";

    #[test]
    fn a_line_becomes_its_fields_at_its_time() {
        let filebeat = Filebeat::read(SETTINGS).unwrap();
        let line = r#"{"@timestamp":"2026-01-02T03:04:05.678901Z","host":"h","type":7}"#;
        let document = filebeat.document(line, Path::new("a.log"), 9);
        assert_eq!(document.index, "lines-2026.01.02");
        let fields = json!({
            "@timestamp": "2026-01-02T03:04:05.678Z",
            "host": "h",
            "log": {"file": {"path": "a.log"}},
            "node": "one",
        });
        assert_eq!(Value::Object(document.fields), fields);
    }

    #[test]
    fn what_is_no_json_is_a_message() {
        let filebeat = Filebeat::read(SETTINGS).unwrap();
        let document = filebeat.document("panicked at", Path::new("a.log"), 0);
        assert_eq!(document.fields["message"], "panicked at");
    }

    #[test]
    fn settings_that_are_not_known_are_an_error() {
        let odd = SETTINGS.replace("add_fields", "script");
        let error = Filebeat::read(&odd).err().unwrap();
        assert!(error.to_string().contains("script"), "{error}");
        let daily = SETTINGS.replace("%{+yyyy.MM.dd}", "");
        assert!(Filebeat::read(&daily).is_err());
    }
}
