//! The demo as its user runs it, but shorter.

use assert_cmd::Command;
use serde_json::Value;

fn sundown() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sundown"))
}

#[test]
fn the_demo_loses_nothing_with_sundown_and_counts_every_request() {
    let ran = sundown()
        .args(["demo", "--json", "--load", "1"])
        .assert()
        .code(0);
    let json: Value = serde_json::from_slice(&ran.get_output().stdout).unwrap();
    assert_eq!(json["schema"], 1);
    for side in ["plain", "sundown"] {
        let count = |field: &str| json[side][field].as_u64().unwrap();
        assert_eq!(
            count("sent"),
            count("answered") + count("declined") + count("lost"),
            "{json}"
        );
        assert!(count("answered") > 0, "{json}");
    }
    assert_eq!(json["sundown"]["lost"], 0);
    assert_eq!(json["sundown"]["orders_without_stock"], 0);
}

#[test]
fn bad_arguments_are_one_line_and_code_2() {
    let ran = sundown().args(["demo", "--load", "0"]).assert().code(2);
    let said = String::from_utf8_lossy(&ran.get_output().stderr).into_owned();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("0.5 to 60 seconds"), "{said}");
}

#[test]
fn help_tells_the_exit_codes() {
    let ran = sundown().arg("--help").assert().code(0);
    let said = String::from_utf8_lossy(&ran.get_output().stdout).into_owned();
    for line in [
        "0  the promise was kept",
        "1  the promise was broken",
        "2  it could not",
        "3  too little",
    ] {
        assert!(said.contains(line), "{said}");
    }
}
