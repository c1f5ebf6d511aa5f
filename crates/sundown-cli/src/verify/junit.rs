//! Puts the results into JUnit's XML, for build servers.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use sundown_verify::Verdict;
use sundown_verify::suite::{Judged, Judgement};

use super::paint::Paint;
use super::{weighs, words};

/// One suite, a case for each check. A check that does not weigh is never a failure: build servers
/// know no half of one.
pub(super) fn document(judged: &Judged, strict: bool) -> anyhow::Result<String> {
    let mut suite = TestSuite::new("sundown verify");
    suite.add_test_cases(
        judged
            .judgements
            .iter()
            .map(|judgement| case(judgement, strict)),
    );
    let mut report = Report::new("sundown verify");
    report.add_test_suite(suite);
    Ok(report.to_string()?)
}

fn case(judgement: &Judgement, strict: bool) -> TestCase {
    let check = judgement.check;
    let failure = |kind| {
        let mut status = TestCaseStatus::non_success(kind);
        status.set_message(judgement.seen.clone());
        status.set_description(words::failure(judgement, Paint::Plain));
        status
    };
    let status = match judgement.verdict {
        Verdict::Fail | Verdict::Flaky if weighs(check.level, strict) => {
            failure(NonSuccessKind::Failure)
        }
        Verdict::Inconclusive if weighs(check.level, strict) => failure(NonSuccessKind::Error),
        Verdict::Skipped => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(judgement.seen.clone());
            status
        }
        _ => TestCaseStatus::success(),
    };
    let mut case = TestCase::new(format!("{} {}", check.id, check.promise), status);
    case.set_classname(words::section(check));
    case.set_system_out(judgement.seen.clone());
    case
}
