//! Puts the results into JSON for machines; `schema/verify.json` describes it.

use serde_json::{Value, json};
use sundown_verify::suite::{Judged, Judgement};

use super::{Arguments, verdict};
use crate::Verdict;

/// The version of the document's shape.
const SCHEMA: u32 = 1;

pub(super) fn document(arguments: &Arguments, judged: &Judged) -> String {
    let value = value(arguments, judged);
    serde_json::to_string_pretty(&value).expect("it is made of strings and numbers")
}

/// The document, for whoever puts it into another.
pub(super) fn value(arguments: &Arguments, judged: &Judged) -> Value {
    let command: Vec<_> = arguments
        .command
        .iter()
        .map(|word| word.to_string_lossy())
        .collect();
    let checks: Vec<Value> = judged.judgements.iter().map(check).collect();
    json!({
        "schema": SCHEMA,
        "command": command,
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
    })
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
        "advice": check.advice,
        "source": check.source,
    })
}
