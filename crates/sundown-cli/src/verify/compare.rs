//! One service in several environments, side by side.

use std::ffi::OsString;

use anyhow::bail;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{Cell, CellAlignment, Color, Table};
use sundown_verify::suite::Judged;
use sundown_verify::{Check, Verdict};

use super::paint::Paint;
use super::target::{CommandLine, command_line};
use super::words;

/// What the command behind `--` is called.
pub(super) const FIRST: &str = "this";

/// How a service is started in one environment.
#[derive(Debug, Clone)]
pub(super) struct Environment {
    pub(super) name: String,
    pub(super) command: Vec<OsString>,
}

/// Reads `NAME=CMD`; the command is split as a shell would, and no shell is started.
pub(super) fn environment(text: &str) -> Result<Environment, String> {
    let (name, command) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("give NAME=CMD, such as docker='docker run --rm -p {port}:80 app'")?;
    let CommandLine(command) = command_line(command).map_err(|error| format!("{name}: {error}"))?;
    Ok(Environment {
        name: name.to_owned(),
        command,
    })
}

/// No two environments may have one name.
pub(super) fn distinct(environments: &[Environment]) -> anyhow::Result<()> {
    let mut names: Vec<&str> = environments.iter().map(|one| one.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => bail!("two environments are called {}", pair[0]),
        None => Ok(()),
    }
}

/// The checks by environment. A row whose verdicts differ is marked.
pub(super) fn table(environments: &[Environment], judged: &[Judged], paint: Paint) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    // Whether there is colour has been decided.
    table.force_no_tty().enforce_styling();
    let names = environments.iter().map(|one| one.name.clone());
    table.set_header([String::new(), "check".to_owned()].into_iter().chain(names));
    for (at, judgement) in judged[0].judgements.iter().enumerate() {
        let verdicts: Vec<Verdict> = judged
            .iter()
            .map(|one| one.judgements[at].verdict)
            .collect();
        let differs = verdicts.iter().any(|verdict| *verdict != verdicts[0]);
        let mark = if differs { "≠" } else { "" };
        let first = [mark.to_owned(), row_name(judgement.check)];
        let cells = verdicts.iter().map(|verdict| cell(*verdict, paint));
        table.add_row(first.into_iter().map(Cell::from).chain(cells));
    }
    let mut add = |name: &str, tell: fn(&Judged) -> String| {
        let first = [String::new(), name.to_owned()];
        table.add_row(first.into_iter().chain(judged.iter().map(tell)));
    };
    add("signal to exit under load, median", |judged| {
        let median = judged.median_stop();
        median.map_or_else(|| "not seen".to_owned(), |median| format!("{median} ms"))
    });
    add("lost", losses);
    add("ended by", |judged| {
        let last = judged.stops.last();
        last.map_or_else(
            || "not seen".to_owned(),
            |stop| match stop.killed {
                true => "our SIGKILL".to_owned(),
                false => stop.exit.clone(),
            },
        )
    });
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}

/// The table colours by itself: it counts what is shown.
fn cell(verdict: Verdict, paint: Paint) -> Cell {
    let cell = Cell::new(words::name(verdict));
    match (paint, verdict) {
        (Paint::Plain, _) | (_, Verdict::Skipped) => cell,
        (_, Verdict::Pass) => cell.fg(Color::DarkGreen),
        (_, Verdict::Fail) => cell.fg(Color::DarkRed),
        (_, Verdict::Flaky | Verdict::Inconclusive) => cell.fg(Color::DarkYellow),
    }
}

fn row_name(check: &Check) -> String {
    format!("{} {} {}", check.id, words::level(check), check.promise)
}

fn losses(judged: &Judged) -> String {
    match judged.losses() {
        (0, _) => "nothing was at stake".to_owned(),
        (exposed, 0) => format!(
            "0 of {exposed} (at most {})",
            words::percent((3.0 / exposed as f64).min(1.0))
        ),
        (exposed, lost) => format!("{lost} of {exposed}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_as_a_shell_would() {
        let docker = environment("docker=docker run --name 'a b' -p {port}:80").unwrap();
        assert_eq!(docker.name, "docker");
        assert_eq!(docker.command[3], "a b");
        assert_eq!(docker.command.len(), 6);
    }

    #[test]
    fn what_is_no_environment_is_told() {
        for text in ["", "docker", "=cmd", "docker=", "docker='run"] {
            assert!(environment(text).is_err(), "{text:?}");
        }
        let same = ["a=x", "a=y"].map(|text| environment(text).unwrap());
        assert!(distinct(&same).is_err() && distinct(&same[..1]).is_ok());
    }
}
