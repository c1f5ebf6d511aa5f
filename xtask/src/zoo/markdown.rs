//! The zoo as Markdown.

use std::fmt::Write as _;

use sundown_verify::Verdict as Found;
use sundown_verify::suite::Judgement;

use super::{LEGEND, Seen, Visit, Zoo, mark};

pub(super) fn page(zoo: &Zoo) -> String {
    let topic = zoo.topic;
    let mut text = format!(
        "# {}\n\n{} Made by `{}`; every figure is of this one run.\n\
         `sundown verify --explain ID` tells how a check works and where its promise comes from.\n",
        topic.title, topic.lead, topic.chore
    );
    let _ = writeln!(
        text,
        "\n{}; runs of each check: {}; a stop may take 30 s, as Kubernetes lets it.\n",
        zoo.machine, zoo.runs
    );
    text.push_str(&table(zoo));
    let _ = writeln!(text, "\n{LEGEND}\n\n## The servers\n");
    for visit in &zoo.visits {
        about(&mut text, visit);
    }
    text
}

/// A row for each check, a column for each server.
pub(super) fn table(zoo: &Zoo) -> String {
    let names: Vec<&str> = zoo
        .seen()
        .map(|(subject, _)| subject.name.as_str())
        .collect();
    let mut text = format!("| check | | {} |\n|---|---", names.join(" | "));
    text.push_str(&"|:-:".repeat(names.len()));
    text.push_str("|\n");
    for check in &zoo.checks {
        let level = format!("{:?}", check.level).to_uppercase();
        let _ = write!(text, "| `{}` {} | {level}", check.id, check.promise);
        for (_, seen) in zoo.seen() {
            let _ = write!(text, " | {}", mark(verdict(seen, check.id)).sign);
        }
        text.push_str(" |\n");
    }
    text.push_str("| signal to exit under load, median, ms |");
    for (_, seen) in zoo.seen() {
        let median = seen.judged.median_stop();
        let median = median.map_or_else(String::new, |median| median.to_string());
        let _ = write!(text, " | {median}");
    }
    text.push_str(" |\n");
    text
}

pub(super) fn verdict(seen: &Seen, id: &str) -> Found {
    let mut judgements = seen.judged.judgements.iter();
    let judgement = judgements.find(|judgement| judgement.check.id == id);
    judgement.map_or(Found::Skipped, |judgement| judgement.verdict)
}

fn about(text: &mut String, visit: &Visit) {
    let subject = &visit.subject;
    let seen = match &visit.outcome {
        Ok(seen) => seen,
        Err(missing) => {
            let _ = writeln!(text, "### {}\n\nNot run: {missing}\n", subject.name);
            return;
        }
    };
    let _ = writeln!(
        text,
        "### {}\n\n{} {}: `{}`\n",
        subject.name, subject.framework, seen.version, visit.command
    );
    let told: Vec<&Judgement> = told(seen).collect();
    if told.is_empty() {
        text.push_str("Keeps all that was asked.\n\n");
        return;
    }
    for judgement in told {
        let check = judgement.check;
        let sign = mark(judgement.verdict).sign;
        let _ = writeln!(
            text,
            "- {sign} `{}` {}: {}",
            check.id, check.promise, judgement.seen
        );
    }
    text.push('\n');
}

/// What is worth a word beside the table.
pub(super) fn told(seen: &Seen) -> impl Iterator<Item = &Judgement> {
    let judgements = seen.judged.judgements.iter();
    judgements.filter(|judgement| !matches!(judgement.verdict, Found::Pass | Found::Skipped))
}
