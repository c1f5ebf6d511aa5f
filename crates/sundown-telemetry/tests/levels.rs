//! What is logged changes while the process runs. A test alone in its process: the subscriber is the process's.

use std::time::Duration;

use sundown_telemetry::{BadLevels, Format, Logs, NotStarted};

#[test]
fn levels_by_target_change_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let log = Logs::of("test").format(Format::Json).file(&path).unwrap();
    let log = log.levels("warn,chatty=info").unwrap().init().unwrap();
    let say = |what: &str| {
        tracing::info!(target: "chatty", "chatty {what}");
        tracing::info!(target: "other", "other {what}");
    };
    say("before");
    log.set_levels("info,chatty=off").unwrap();
    say("after");
    log::info!("by the log crate");
    log.flush(Duration::from_secs(60)).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let messages: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["message"].to_string())
        .collect();
    assert_eq!(
        messages,
        [
            "\"chatty before\"",
            "\"other after\"",
            "\"by the log crate\""
        ]
    );
    assert_eq!(log.counts().written, 3);

    assert!(matches!(
        log.set_levels("x=y=z"),
        Err(BadLevels::Unreadable { .. })
    ));
    assert!(matches!(
        Logs::of("second").init(),
        Err(NotStarted::Taken(_))
    ));
}
