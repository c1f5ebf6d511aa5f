//! The verb `verify`, on servers that stop well, badly, or are none.

use std::path::Path;
use std::process::{Command, Output};

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use sundown_testkit::bin_path;

fn verify(arguments: &[&str]) -> Output {
    let verify = Command::new(cargo_bin!("sundown"))
        .arg("verify")
        .args(arguments)
        .output();
    verify.unwrap()
}

/// Plays some checks on the server with this fault.
fn verify_planted(options: &[&str], fault: &[&str]) -> Output {
    let planted = bin_path("examples/planted");
    let command = ["--fast", "/fast", "--", planted.to_str().unwrap(), "{port}"];
    verify(&[options, &command, fault].concat())
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_server_that_stops_well_passes_and_the_report_says_how_often_it_could_have_failed() {
    let output = verify_planted(&["--only", "signal/1,listener/2"], &[]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    assert!(
        text.contains(
            "0 of 64 lost; 64 were in the accept queue at the signal (at most 4.7 % at 95 %)"
        ),
        "{text}"
    );
    assert!(text.ends_with("2 pass\n"), "{text}");
}

#[test]
fn a_must_that_fails_fails_the_whole_and_says_what_to_do() {
    let output = verify_planted(&["--only", "listener/2"], &["backlog"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in [
        "expected  no request is lost",
        "reset in the backlog",
        "advice    Accept until",
    ] {
        assert!(text.contains(word), "{word:?} in {text}");
    }
}

#[test]
fn a_server_that_dies_of_the_signal_is_told_that_nobody_handles_it() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cause.xml");
    let options = ["--signal", "INT", "--only", "signal/2,http1/2", "--strict"];
    let junit = ["--junit", file.to_str().unwrap()];
    let run = |output: &[&str]| {
        stdout(&verify_planted(
            &[&options, output].concat(),
            &["interrupt"],
        ))
    };
    let cause = "SIGINT itself ended the process: nobody handles it";
    let text = run(&junit);
    let line = format!("  cause     {cause}\n");
    assert_eq!(text.matches(&line).count(), 2, "{text}");
    let junit = std::fs::read_to_string(&file).unwrap();
    assert_eq!(junit.matches(cause).count(), 2, "{junit}");
    let document: Value = serde_json::from_str(&run(&["--json", "-"])).unwrap();
    for check in document["checks"].as_array().unwrap() {
        assert_eq!(check["cause"], cause, "{check}");
    }
    let kept = verify_planted(&["--only", "signal/2", "--json", "-"], &[]);
    let document: Value = serde_json::from_str(&stdout(&kept)).unwrap();
    assert_eq!(document["checks"][0]["cause"], Value::Null);
}

#[test]
fn a_should_that_fails_counts_only_when_strict() {
    let only = ["--only", "signal/2"];
    assert_eq!(verify_planted(&only, &["status"]).status.code(), Some(0));
    let strict = [&only[..], &["--strict"]].concat();
    assert_eq!(verify_planted(&strict, &["status"]).status.code(), Some(1));
}

#[test]
fn json_goes_to_stdout_and_nothing_else_does() {
    let output = verify_planted(&["--only", "signal/2,http1/1", "--json", "-"], &["status"]);
    let document: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(document["schema"], 1);
    assert_eq!(document["verdict"], "pass");
    let checks = document["checks"].as_array().unwrap();
    let verdicts: Vec<_> = checks
        .iter()
        .map(|check| (&check["id"], &check["verdict"]))
        .collect();
    assert_eq!(verdicts.len(), 2);
    assert_eq!(
        (verdicts[0].0, verdicts[0].1),
        (&"signal/2".into(), &"fail".into())
    );
    // No target that takes a while was given.
    assert_eq!(
        (verdicts[1].0, verdicts[1].1),
        (&"http1/1".into(), &"skipped".into())
    );
    assert_eq!(checks[0]["seen"], "exit code 7");
}

#[test]
fn what_is_no_service_gets_one_clear_line_and_exit_code_2() {
    let planted = bin_path("examples/planted");
    let garbled = [planted.to_str().unwrap(), "{port}", "garbled"];
    let table: &[(&[&str], &str)] = &[
        (&[], "no command was given"),
        (
            &["--only", "http9", "--", "true"],
            "no check and no section is named http9",
        ),
        (&["--explain", "http1/99"], "no check is named http1/99"),
        (
            &["--", "/no/such/server"],
            "could not start /no/such/server",
        ),
        (&["--", "true"], "ended early"),
        (
            &["--start", "300ms", "--", "sleep", "60"],
            "did not listen on 127.0.0.1:",
        ),
        (
            &["--", garbled[0], garbled[1], garbled[2]],
            "what it answers is not HTTP/1.1",
        ),
    ];
    for (arguments, expected) in table {
        let output = verify(arguments);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(
            told.starts_with("error: ") && told.contains(expected),
            "{arguments:?}: {told}"
        );
        assert_eq!(told.trim_end().lines().count(), 1, "{arguments:?}: {told}");
    }
}

#[test]
fn the_lists_tell_every_check() {
    let list = stdout(&verify(&["--list"]));
    assert!(list.contains("http1/2") && list.contains("MUST"), "{list}");
    let explained = stdout(&verify(&["--explain", "listener/2"]));
    assert!(
        explained.contains("SIGSTOP") && explained.contains("listen(2)"),
        "{explained}"
    );
}

#[test]
fn the_json_is_what_the_schema_says() {
    let schema: Value = serde_json::from_str(include_str!("../schema/verify.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    // One that passes, one that fails with evidence, one that is skipped, and one under load.
    let only = ["--only", "listener,http1/1,signal/1", "--json", "-"];
    let document = serde_json::from_str(&stdout(&verify_planted(&only, &["backlog"]))).unwrap();
    let faults: Vec<String> = schema
        .iter_errors(&document)
        .map(|fault| fault.to_string())
        .collect();
    assert!(faults.is_empty(), "{faults:?}");
    let stops = document["stops"].as_array().unwrap();
    assert!(stops[0]["kernel"].is_null(), "others are counted with it");
    let mut other = document;
    other["checks"][0]["verdict"] = "good".into();
    assert!(
        !schema.is_valid(&other),
        "the schema refuses what is not in it"
    );
}

#[test]
fn a_server_is_judged_over_tls_and_one_that_does_not_speak_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("entries");
    let tls = ["--only", "tls,http1/2", "--tls"];
    let output = verify_planted(&tls, &["unnotified", store.to_str().unwrap(), "tls"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    assert!(text.contains("8 of 8 were not announced"), "{text}");
    assert!(text.contains("2 pass, 1 FAIL"), "{text}");

    // It takes the ClientHello for the beginning of a head.
    let output = verify_planted(&[&tls[..], &["--start", "1s"]].concat(), &[]);
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(said.contains("it does not shake hands for TLS"), "{said}");
}

#[test]
fn a_server_of_grpc_is_judged_without_http1() {
    let options = [
        "--no-http1",
        "--grpc",
        "/planted.Streams/Watch",
        "--only",
        "stream/3,http2/2,http1/2",
    ];
    let good = stdout(&verify_planted(&options, &[]));
    assert!(good.contains("2 pass, 1 skipped"), "{good}");
    let bad = stdout(&verify_planted(&options, &["statusless"]));
    assert!(bad.contains("1 pass, 1 FAIL, 1 skipped"), "{bad}");
}

#[test]
fn what_is_declared_of_a_stop_is_judged() {
    let status = ["--only", "signal/2,signal/3", "--strict"];
    let other = verify_planted(&[&status[..], &["--exit-code", "7"]].concat(), &["status"]);
    assert_eq!(other.status.code(), Some(0), "{}", stdout(&other));

    let second = |what| {
        let paths = ["--slow", "/slow", "--endless", "/endless"];
        let only = ["--only", "signal/4,signal/5", "--second-signal", what];
        stdout(&verify_planted(&[only.as_slice(), &paths].concat(), &[]))
    };
    let nothing = second("nothing");
    assert!(nothing.contains("2 pass"), "{nothing}");
    let hurries = second("hurries");
    assert!(hurries.contains("2 FAIL"), "{hurries}");
}

#[test]
fn junit_tells_failures_that_weigh() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("junit.xml");
    let path = file.to_str().unwrap();
    let only = ["--only", "signal/2,listener/2", "--junit", path];
    let output = verify_planted(&only, &["status"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let weighed = std::fs::read_to_string(&file).unwrap();
    assert!(weighed.contains(r#"tests="2""#), "{weighed}");
    assert!(weighed.contains(r#"failures="0""#), "{weighed}");

    verify_planted(&[&only[..], &["--strict"]].concat(), &["status"]);
    let strict = std::fs::read_to_string(&file).unwrap();
    assert!(strict.contains(r#"failures="1""#), "{strict}");
    assert!(strict.contains("exit code 7"), "{strict}");
}

#[test]
fn the_page_tells_what_the_json_tells_and_what_clients_did() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (page, json) = (folder.join("page.html"), folder.join("page.json"));
    let files = [
        "--html",
        page.to_str().unwrap(),
        "--json",
        json.to_str().unwrap(),
    ];
    let only = ["--slow", "/slow", "--only", "http1/1,http1/2,http2"];
    let output = verify_planted(&[&only[..], &files].concat(), &["blind-idle"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let page = std::fs::read_to_string(page).unwrap();
    let (_, data) = page.split_once(r#"id="data">"#).unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    let mut told: Value = serde_json::from_str(data).unwrap();
    let timelines = told.as_object_mut().unwrap().remove("timelines").unwrap();
    let document: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(told, document);

    // One stop for each of two checks; what was skipped has none.
    let timelines = timelines.as_array().unwrap();
    assert_eq!(timelines.len(), 2, "{timelines:?}");
    let raced = &timelines[1];
    assert_eq!(raced["failed"][0], "http1/2");
    let bars = |timeline: &Value| -> Vec<Value> {
        let lanes = timeline["lanes"].as_array().unwrap();
        let bars = lanes
            .iter()
            .flat_map(|lane| lane["bars"].as_array().unwrap());
        bars.cloned().collect()
    };
    let of = |class: &str| {
        bars(raced)
            .iter()
            .filter(|bar| bar["class"] == class)
            .count()
    };
    assert_eq!(bars(raced).len(), 64, "as many as the check has clients");
    assert_eq!(of("lost") as u64, document["checks"][1]["lost"]);
    for bar in timelines.iter().flat_map(bars) {
        assert!(bar["from"].as_f64() <= bar["to"].as_f64(), "{bar}");
        assert_eq!(bar["evidence"].is_string(), bar["class"] == "lost", "{bar}");
    }
    for timeline in timelines {
        let marks = timeline["marks"].as_array().unwrap();
        let names: Vec<_> = marks
            .iter()
            .map(|mark| mark["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["signal", "listener", "exit"]);
        assert_eq!(marks[0]["at"], 0.0);
    }
}

/// The bars of a check in a page.
fn bars_of(page: &Path, check: &str) -> Vec<Value> {
    let page = std::fs::read_to_string(page).unwrap();
    let (_, data) = page.split_once(r#"id="data">"#).unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    let told: Value = serde_json::from_str(data).unwrap();
    let all = |value: &Value| value.as_array().unwrap().clone();
    let lanes = all(&told["timelines"])
        .into_iter()
        .flat_map(|timeline| all(&timeline["lanes"]));
    let of_check = lanes.filter(|lane| lane["check"] == check);
    of_check.flat_map(|lane| all(&lane["bars"])).collect()
}

#[test]
fn who_makes_no_usual_request_has_bars_too() {
    let page = Path::new(env!("CARGO_TARGET_TMPDIR")).join("attempts.html");
    let options = ["--endless", "/endless", "--ws", "/ws", "--grace", "5s"];
    let only = ["--only", "listener/4,stream/1,budget/1"];
    let html = ["--html", page.to_str().unwrap()];
    let output = verify_planted(&[&options[..], &only, &html].concat(), &["wordless"]);
    let told = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{told}{}", stderr(&output));
    let table = [
        ("listener/4", 8, "declined", "refused"),
        ("stream/1", 4, "lost", "ended without a close frame (1006)"),
        ("budget/1", 1, "lost", "closed without an answer"),
    ];
    for (check, count, class, how) in table {
        let bars = bars_of(&page, check);
        assert_eq!(bars.len(), count, "{check}: {bars:?}");
        for bar in bars {
            assert_eq!(bar["class"], class, "{check}: {bar}");
            assert_eq!(bar["how"], how, "{check}: {bar}");
            assert_eq!(bar["evidence"].is_string(), class == "lost", "{bar}");
        }
    }
}

#[test]
fn environments_are_compared_and_what_differs_is_marked() {
    let planted = bin_path("examples/planted");
    let other = format!("other={} {{port}} status", planted.display());
    let output = verify_planted(&["--only", "signal/1,signal/2", "--compare", &other], &[]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    let row = |id: &str| text.lines().find(|line| line.contains(id)).unwrap();
    assert!(row("signal/2").contains('≠'), "{text}");
    assert!(!row("signal/1").contains('≠'), "{text}");
    assert!(row("ended by").contains("exit code 7"), "{text}");
}

#[test]
fn the_file_says_what_the_flags_do_not() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sundown.verify.toml");
    let path = file.to_str().unwrap();
    let planted = bin_path("examples/planted");
    let run = |text: &str, options: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let command = ["--", planted.to_str().unwrap(), "{port}"];
        verify(&[&["--only", "http1/1", "--config", path], options, &command].concat())
    };
    let output = run("fast = \"/fast\"\nslow = \"/slow\"\ngrace = \"3s\"\n", &[]);
    assert!(stdout(&output).ends_with("1 pass\n"), "{}", stdout(&output));

    for (text, expected) in [
        (
            "sloww = \"/\"\n",
            "sundown.verify.toml, line 1: unknown field",
        ),
        ("grace = \"soon\"\n", "grace = \"soon\": "),
        (
            "fast = \"/\"\nsignal = \"BYE\"\n",
            "signal = \"BYE\": give TERM",
        ),
    ] {
        let output = run(text, &[]);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(expected), "{told}");
        assert_eq!(told.trim_end().lines().count(), 1, "{told}");
    }
    let output = run("grace = \"soon\"\nslow = \"/slow\"\n", &["--grace", "3s"]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "a flag counts before the file"
    );
}

#[test]
fn a_shell_between_us_and_the_service_is_named_and_the_group_gets_past_it() {
    let planted = bin_path("examples/planted");
    // A shell that has more to do does not become its last command.
    let script = format!("{} {{port}}; true", planted.display());
    let run = |options: &[&str]| {
        let command = [
            "--fast", "/fast", "--slow", "/slow", "--only", "http1/3", "--strict",
        ];
        verify(&[&command, options, &["--", "sh", "-c", &script]].concat())
    };
    let leader = run(&[]);
    let told = stderr(&leader);
    assert!(told.contains("what listens is planted"), "{told}");
    assert_eq!(leader.status.code(), Some(1), "{}", stdout(&leader));
    let group = run(&["--signal-to", "group"]);
    assert_eq!(group.status.code(), Some(0), "{}", stdout(&group));
}

/// Finds what stands between two texts.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let found = text
        .split_once(before)
        .and_then(|(_, rest)| rest.split_once(after));
    found
        .unwrap_or_else(|| panic!("{before:?} … {after:?} in {text}"))
        .0
}

fn is_gone(pid: &str) -> bool {
    pid.parse::<u32>().unwrap() > 1 && !Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_command_that_becomes_a_daemon_gets_one_clear_line_and_leaves_nothing_behind() {
    let planted = bin_path("examples/planted");
    let planted = planted.to_str().unwrap();
    // A session of its own, and a parent that is gone at once: no group tells of it.
    let output = verify(&[
        "--fast", "/fast", "--", "setsid", "--fork", planted, "{port}",
    ]);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert_eq!(told.trim_end().lines().count(), 1, "{told}");
    let start = "error: the command ended with exit code 0 and left process ";
    assert!(told.starts_with(start), "{told}");
    assert!(is_gone(between(&told, start, " (")), "{told}");
    let port = between(&told, "planted ", ")").parse().unwrap();
    let free = std::net::TcpListener::bind(("127.0.0.1", port));
    assert!(free.is_ok(), "the port is leaked: {free:?}");
}

#[test]
fn an_orphan_that_has_left_the_session_is_told_by_name_and_ended() {
    let planted = bin_path("examples/planted");
    let script = format!("setsid {} {{port}} & wait", planted.display());
    let run = ["--fast", "/fast", "--only", "proc/1,proc/2"];
    let output = verify(&[&run[..], &["--", "sh", "-c", &script]].concat());
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}{}", stderr(&output));
    assert!(text.contains("1 process was left"), "{text}");
    assert!(
        is_gone(between(&text, "            process ", " (")),
        "{text}"
    );
    assert!(text.contains(&format!("({} ", planted.display())), "{text}");
    assert!(text.contains("somebody listens still"), "{text}");
}

/// Starts `sundown verify --private-net` on the server with a fault, by a program that starts another.
fn verify_in_private_net(by: &[&str], options: &[&str], fault: &str) -> Output {
    let planted = bin_path("examples/planted");
    let sundown = cargo_bin!("sundown");
    let words = [by, &[sundown.to_str().unwrap(), "verify", "--private-net"]].concat();
    Command::new(words[0])
        .args(&words[1..])
        .args(options)
        .args([
            "--fast",
            "/fast",
            "--",
            planted.to_str().unwrap(),
            "{port}",
            fault,
        ])
        .output()
        .unwrap()
}

/// Tells whether this command succeeds; says so if it does not.
fn permits(words: &[&str]) -> bool {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let permitted = output.as_ref().is_ok_and(|output| output.status.success());
    if !permitted {
        eprintln!("skipped: `{}` is refused here: {output:?}", words.join(" "));
    }
    permitted
}

/// By this another user is somebody who may make a network namespace in a user namespace only.
const UNPRIVILEGED: [&str; 3] = ["unshare", "--user", "--map-user=1000"];

#[test]
fn in_a_network_of_its_own_the_kernel_counts_what_a_service_resets() {
    let schema: Value = serde_json::from_str(include_str!("../schema/verify.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    for by in [&["env"][..], &UNPRIVILEGED] {
        // As anybody: it must not be needed to be root.
        if !permits(&[by, &["unshare", "--user", "--net", "true"]].concat()) {
            continue;
        }
        // A server that does not accept after the signal, and listens still.
        let options = ["--only", "listener/1", "--json", "-"];
        let output = verify_in_private_net(by, &options, "zombie");
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{by:?}: {told}");
        let document: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert!(schema.is_valid(&document), "{document}");
        let counted = &document["stops"][0]["kernel"];
        let count = |name: &str| counted[name].as_u64().unwrap();
        // A connect that is refused is a reset, too.
        let resets = count("OutRsts") - count("AttemptFails");
        assert!(resets > 0 && count("EstabResets") >= resets, "{counted}");
        assert_eq!(count("ListenOverflows"), 0, "the queue was never full");
    }
}

#[test]
fn what_the_kernel_counted_stands_below_the_axis() {
    if !permits(&["unshare", "--user", "--net", "true"]) {
        return;
    }
    let output = verify_in_private_net(&["env"], &["--only", "signal/1,listener/1"], "none");
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    let mut lines = text
        .lines()
        .skip_while(|line| !line.starts_with("signal 0 ms"));
    let counted = lines.nth(1).unwrap();
    assert!(
        counted.starts_with("kernel counted, of both ends: "),
        "{text}"
    );
    assert!(counted.contains("ListenDrops"), "{text}");
}

#[test]
fn a_network_of_its_own_that_is_not_to_be_had_is_one_line() {
    let attached = [
        "--private-net",
        "--url",
        "http://127.0.0.1:1",
        "--stop",
        "true",
    ];
    let output = verify(&attached);
    assert_eq!(output.status.code(), Some(2));
    let expected = "error: --private-net needs a command to start in it: what --url names has a network already\n";
    assert_eq!(stderr(&output), expected);

    let limit = "echo 0 > /proc/sys/user/max_net_namespaces && exec \"$0\" \"$@\"";
    let by = ["unshare", "--user", "--map-root-user", "sh", "-c", limit];
    if !permits(&[&by[..], &["true"]].concat()) {
        return;
    }
    let output = verify_in_private_net(&by, &[], "none");
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(
        told.starts_with("error: --private-net: this system refuses"),
        "{told}"
    );
    assert!(told.contains("run it as root"), "{told}");
}

/// Plays the ledger's check on the server with this fault; a shell command compares what was
/// acknowledged with what is stored.
fn verify_ledger(fault: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("entries");
    let script = "sed s:^:/ledger/: \"$SUNDOWN_ACKNOWLEDGED\" | grep --line-regexp --invert-match \
                  --fixed-strings --file=\"$0\" && exit 1; exit 0";
    let invariant = format!("sh -c '{script}' {}", store.display());
    let options = [
        "--only",
        "data/1",
        "--ledger",
        "/ledger/{id}",
        "--invariant",
        &invariant,
    ];
    verify_planted(&options, &[fault, store.to_str().unwrap()])
}

#[test]
fn a_command_judges_what_is_stored() {
    let kept = verify_ledger("none");
    assert_eq!(
        kept.status.code(),
        Some(0),
        "{}{}",
        stdout(&kept),
        stderr(&kept)
    );

    let forgotten = verify_ledger("forgets");
    let text = stdout(&forgotten);
    assert_eq!(forgotten.status.code(), Some(1), "{text}");
    assert!(
        text.contains("the invariant's command ended with exit code 1"),
        "{text}"
    );
    assert!(text.contains("/ledger/"), "{text}");
}

#[test]
fn a_ledger_that_nobody_can_look_into_is_refused() {
    for (options, word) in [
        (
            &["--ledger", "/entries/{id}"][..],
            "--ledger-read PATH or --invariant CMD",
        ),
        (&["--invariant", "true"], "need --ledger PATH"),
        (
            &[
                "--ledger",
                "/entries",
                "--ledger-body",
                "x",
                "--invariant",
                "true",
            ],
            "{id}",
        ),
    ] {
        let output = verify_planted(options, &[]);
        assert_eq!(output.status.code(), Some(2), "{options:?}");
        let text = stderr(&output);
        assert!(text.contains(word) && text.lines().count() == 1, "{text}");
    }
}
