//! *Reads* metrics in OpenMetrics' text format (1.0, section "Text Format"), as this library and others write them.
//!
//! What is not understood is left out: a metric that is missing is better than none at all.

use std::iter::Peekable;
use std::str::Chars;

/// All samples of a metric.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) help: String,
    pub(super) kind: Kind,
    pub(super) samples: Vec<Sample>,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    #[default]
    Gauge,
    Histogram,
}

/// A line.
#[derive(Debug, PartialEq)]
pub(super) struct Sample {
    /// In whole: of a histogram with what it is a part of.
    pub(super) name: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) value: f64,
    pub(super) exemplar: Option<Exemplar>,
}

/// A request that stands for others.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Exemplar {
    pub(super) labels: Vec<(String, String)>,
    pub(super) value: f64,
}

/// Reads all families that there are.
pub(super) fn read(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            read_comment(comment, &mut families);
        } else if let (Some(sample), Some(family)) = (Sample::read(line), families.last_mut()) {
            family.samples.push(sample);
        }
    }
    families.retain(|family| !family.samples.is_empty());
    families
}

fn read_comment(comment: &str, families: &mut Vec<Family>) {
    let mut words = comment.splitn(3, ' ');
    let (Some(what), Some(name)) = (words.next(), words.next()) else {
        return;
    };
    let rest = words.next().unwrap_or_default();
    if families.last().is_none_or(|family| family.name != name) {
        families.push(Family {
            name: name.to_owned(),
            ..Family::default()
        });
    }
    let family = families
        .last_mut()
        .expect("one was pushed, if there was none");
    match (what, rest) {
        ("HELP", help) => family.help = help.to_owned(),
        ("TYPE", "counter") => family.kind = Kind::Counter,
        ("TYPE", "histogram") => family.kind = Kind::Histogram,
        _ => {}
    }
}

impl Sample {
    fn read(line: &str) -> Option<Self> {
        let mut rest = line.chars().peekable();
        let name = until(&mut rest, |char| char == '{' || char == ' ');
        let labels = read_labels(&mut rest)?;
        let rest: String = rest.collect();
        let (numbers, exemplar) = match rest.split_once(" # ") {
            Some((numbers, exemplar)) => (numbers, Exemplar::read(exemplar)),
            None => (rest.as_str(), None),
        };
        let value = numbers.split_ascii_whitespace().next()?.parse().ok()?;
        Some(Self {
            name,
            labels,
            value,
            exemplar,
        })
    }

    /// The value of a label.
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        let mut labels = self.labels.iter();
        let (_, value) = labels.find(|(label, _)| label == name)?;
        Some(value)
    }
}

impl Exemplar {
    fn read(text: &str) -> Option<Self> {
        let mut rest = text.chars().peekable();
        let labels = read_labels(&mut rest)?;
        let rest: String = rest.collect();
        let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
        Some(Self { labels, value })
    }
}

/// Reads `{name="value",…}`, if it is there.
fn read_labels(rest: &mut Peekable<Chars<'_>>) -> Option<Vec<(String, String)>> {
    let mut labels = Vec::new();
    if rest.next_if_eq(&'{').is_none() {
        return Some(labels);
    }
    while rest.next_if_eq(&'}').is_none() {
        let name = until(rest, |char| char == '=');
        rest.next_if_eq(&'=')?;
        rest.next_if_eq(&'"')?;
        labels.push((name, read_value(rest)?));
        rest.next_if_eq(&',');
    }
    Some(labels)
}

/// Reads a value up to its closing quote.
fn read_value(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut value = String::new();
    loop {
        match rest.next()? {
            '"' => return Some(value),
            '\\' => match rest.next()? {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            char => value.push(char),
        }
    }
}

fn until(rest: &mut Peekable<Chars<'_>>, is_end: impl Fn(char) -> bool) -> String {
    let mut text = String::new();
    while let Some(char) = rest.next_if(|char| !is_end(*char)) {
        text.push(char);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owned(labels: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        owned.collect()
    }

    #[test]
    fn a_family_has_its_kind_its_help_and_its_samples() {
        let text = "# HELP took How long.\n# TYPE took histogram\n# UNIT took seconds\n\
                    took_sum{to=\"a \\\"b\\\\ # {c}\\n\"} 0.5\n\
                    took_bucket{le=\"+Inf\",to=\"a\"} 3 # {trace_id=\"5d\"} 0.25 1520879607.789\n\
                    no sample at all{\n\
                    # TYPE sold counter\nsold_total 7\n# TYPE empty gauge\n# EOF\n";
        let families = read(text);
        let [took, sold] = &families[..] else {
            panic!("{families:?}")
        };
        assert_eq!(
            (took.kind, took.help.as_str()),
            (Kind::Histogram, "How long.")
        );
        assert_eq!(took.samples[0].labels, owned(&[("to", "a \"b\\ # {c}\n")]));
        assert_eq!(took.samples[1].label("le"), Some("+Inf"));
        let exemplar = took.samples[1].exemplar.as_ref().unwrap();
        assert_eq!(
            (exemplar.value, &exemplar.labels),
            (0.25, &owned(&[("trace_id", "5d")]))
        );
        assert_eq!(took.samples.len(), 2);
        assert_eq!((sold.kind, sold.samples[0].value), (Kind::Counter, 7.0));
    }

    proptest! {
        #[test]
        fn anything_is_read_or_left_out(text in "[a-z#{}=\", \\\\0-9\n]{0,200}") {
            for family in read(&text) {
                prop_assert!(!family.samples.is_empty());
            }
        }
    }
}
