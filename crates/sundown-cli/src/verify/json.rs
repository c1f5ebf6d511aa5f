//! Puts the results into JSON for machines; `schema/verify.json` describes it.

use std::borrow::Cow;
use std::ffi::OsString;

use serde_json::{Value, json};
use sundown_verify::Target;
use sundown_verify::suite::{Judged, Judgement};

use super::{Arguments, verdict};
use crate::Verdict;

/// The version of the document's shape.
const SCHEMA: u32 = 1;

pub(super) fn document(arguments: &Arguments, stopped: &Target, judged: &Judged) -> String {
    let value = value(arguments, stopped, judged);
    serde_json::to_string_pretty(&value).expect("it is made of strings and numbers")
}

/// The document, for whoever puts it into another.
pub(super) fn value(arguments: &Arguments, stopped: &Target, judged: &Judged) -> Value {
    let command = match stopped {
        Target::Command(command) => words(command),
        _ => Vec::new(),
    };
    let checks: Vec<Value> = judged.judgements.iter().map(check).collect();
    json!({
        "schema": SCHEMA,
        "command": command,
        "target": target(stopped),
        "runs": arguments.runs,
        "strict": arguments.strict,
        "verdict": match verdict(judged, arguments.strict) {
            Verdict::Kept => "pass",
            Verdict::Broken => "fail",
            Verdict::Inconclusive => "inconclusive",
        },
        "checks": checks,
        "stops": judged.stops,
        "wrapped": judged.wrapped,
        "stayed": judged.stayed,
    })
}

/// What was stopped, by its kind.
fn target(target: &Target) -> Value {
    match target {
        Target::Command(_) => json!({ "kind": "command" }),
        Target::Pid(attached) => json!({
            "kind": "pid",
            "url": format!("http://{}", attached.address),
            "pid": attached.pid,
            "name": attached.name,
        }),
        Target::Unit(unit) => json!({
            "kind": "unit",
            "url": format!("http://{}", unit.address),
            "unit": unit.name,
        }),
        Target::Url(reached) => json!({
            "kind": "url",
            "url": format!("http://{}", reached.address),
            "stop": words(&reached.stop),
            "again": reached.again.as_deref().map(words),
        }),
    }
}

fn words(command: &[OsString]) -> Vec<Cow<'_, str>> {
    command.iter().map(|word| word.to_string_lossy()).collect()
}

fn check(judgement: &Judgement) -> Value {
    let check = judgement.check;
    json!({
        "id": check.id,
        "level": check.level,
        "promise": check.promise,
        "verdict": judgement.verdict,
        "exposed": judgement.exposed,
        "lost": judgement.lost,
        "bound": judgement.bound(),
        "seen": judgement.seen,
        "expected": check.criterion,
        "evidence": judgement.evidence,
        "cause": judgement.cause,
        "advice": check.advice,
        "source": check.source,
    })
}
