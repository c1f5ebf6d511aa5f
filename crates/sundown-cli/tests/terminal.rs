//! What a person at a terminal sees of the verb `verify`.

use std::process::{Command, Stdio};

use assert_cmd::cargo::cargo_bin;
use sundown_testkit::{Terminal, bin_path};

/// Begins a colour (ECMA-48 §8.3.117).
const COLOUR: &str = "\x1b[";

/// A check that is over in no time, on a server that keeps it.
fn verify(options: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(cargo_bin!("sundown"));
    command.args(["verify", "--fast", "/fast", "--only", "signal/2"]);
    command.args(options).arg("--");
    command.arg(bin_path("examples/planted")).arg("{port}");
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm-256color");
    command.envs(environment.iter().copied());
    command.stderr(Stdio::null());
    command
}

/// What is on the terminal in the end.
fn at_terminal(options: &[&str], environment: &[(&str, &str)]) -> String {
    let mut terminal = Terminal::open(200).unwrap();
    let mut command = verify(options, environment);
    let mut child = command.stdout(terminal.stdio()).spawn().unwrap();
    // The command holds the child's end of the terminal, too.
    drop(command);
    let rows = terminal.rows_at_the_end();
    assert!(child.wait().unwrap().success(), "{rows:?}");
    rows.join("\n")
}

#[test]
fn verdicts_are_coloured_at_a_terminal_unless_somebody_objects() {
    type Given = &'static [&'static str];
    type Environment = &'static [(&'static str, &'static str)];
    let table: &[(Given, Environment, bool)] = &[
        (&[], &[], true),
        (&[], &[("NO_COLOR", "1")], false),
        // no-color.org: when present and not an empty string.
        (&[], &[("NO_COLOR", "")], true),
        (&[], &[("TERM", "dumb")], false),
        (&["--color", "never"], &[], false),
        (&["--color", "always"], &[("NO_COLOR", "1")], true),
    ];
    for (options, environment, coloured) in table {
        let seen = at_terminal(options, environment);
        let what = format!("{options:?}, {environment:?}: {seen}");
        assert_eq!(seen.contains(COLOUR), *coloured, "{what}");
        let verdict = if *coloured {
            "\x1b[32m1 pass\x1b[0m"
        } else {
            "1 pass"
        };
        assert!(seen.ends_with(verdict), "{what}");
    }
}

#[test]
fn elsewhere_they_are_plain_unless_somebody_asks() {
    for (options, coloured) in [(&[][..], false), (&["--color", "always"], true)] {
        let output = verify(options, &[]).output().unwrap();
        let seen = String::from_utf8_lossy(&output.stdout);
        assert_eq!(seen.contains(COLOUR), coloured, "{options:?}: {seen}");
    }
}
