//! The verb `verify` on what runs already: by its PID, and by its address alone.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use sundown_testkit::bin_path;
use sundown_verify::process::{Ended, ProcessError, free_port};
use sundown_verify::{Process, Spawn};

const LIMIT: Duration = Duration::from_secs(30);

/// A server that is the test's own child, and gone when it is dropped.
struct Planted {
    process: Process,
    address: SocketAddr,
}

impl Planted {
    async fn start(fault: &[&str]) -> Self {
        let address = free_port().unwrap();
        let port = address.port().to_string();
        let spawn = Spawn::new(bin_path("examples/planted")).arg(&port);
        let mut process = spawn.args(fault).start().unwrap();
        process.wait_listening(address, LIMIT).await.unwrap();
        Self { process, address }
    }

    fn pid(&self) -> String {
        self.process.id().to_string()
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Tells how it ended, which it has.
    async fn ended(&mut self) -> Ended {
        self.process.wait_exit(LIMIT).await.unwrap().ended
    }

    async fn runs(&mut self) -> bool {
        let ended = self.process.wait_exit(Duration::ZERO).await;
        matches!(ended, Err(ProcessError::TooSlow { .. }))
    }
}

fn verify(arguments: &[&str]) -> Output {
    let verify = Command::new(cargo_bin!("sundown"))
        .args(["verify", "--fast", "/fast"])
        .args(arguments)
        .output();
    verify.unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Reads the results, which are what the schema says.
fn results(output: &Output) -> Value {
    let document = serde_json::from_str(&stdout(output));
    let document = document.unwrap_or_else(|_| panic!("{}", stderr(output)));
    let schema = serde_json::from_str(include_str!("../schema/verify.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let faults = schema.iter_errors(&document).map(|fault| fault.to_string());
    let faults: Vec<String> = faults.collect();
    assert!(faults.is_empty(), "{faults:?}");
    document
}

/// The verdict of a check, and what was seen.
fn seen(document: &Value, id: &str) -> (String, String) {
    let checks = document["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["id"] == id).unwrap();
    let text = |key: &str| check[key].as_str().unwrap().to_owned();
    (text("verdict"), text("seen"))
}

/// Asserts verdicts and a part of what was seen.
fn assert_seen(document: &Value, table: &[(&str, &str, &str)]) {
    for (id, verdict, part) in table {
        let (found, seen) = seen(document, id);
        assert!(
            found == *verdict && seen.contains(part),
            "{id}: {found}, {seen}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_runs_is_stopped_once_and_what_is_not_seen_is_skipped_with_its_reason() {
    let mut server = Planted::start(&[]).await;
    let only = "signal,listener,proc,http1/1,http1/2,http1/15";
    let output = verify(&[
        "--pid",
        &server.pid(),
        "--slow",
        "/slow",
        "--only",
        only,
        "--json",
        "-",
    ]);

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let document = results(&output);
    let again = "needs a start of its own: give the command instead of --pid";
    assert_seen(
        &document,
        &[
            ("signal/1", "pass", "exited after"),
            ("http1/1", "pass", "0 of "),
            ("http1/15", "pass", "0 of "),
            ("listener/1", "pass", "0 of "),
            ("proc/2", "pass", "the port is free"),
            ("signal/2", "skipped", "the exit status"),
            ("proc/1", "skipped", "needs all its processes"),
            ("signal/6", "skipped", "give the command instead of --pid"),
            ("signal/8", "skipped", again),
            ("listener/2", "skipped", again),
            ("http1/2", "skipped", again),
        ],
    );
    assert_eq!(document["target"]["kind"], "pid");
    assert_eq!(document["target"]["url"], server.url());
    assert_eq!(document["stops"][0]["exit"], "status not seen");
    let note = format!(
        "note: process {} (planted) on {} is to get SIGTERM",
        server.pid(),
        server.address
    );
    assert!(stderr(&output).contains(&note), "{}", stderr(&output));
    assert_eq!(
        server.ended().await,
        Ended::Code(0),
        "it had SIGTERM and no more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_outstays_its_grace_is_left_alone() {
    let mut server = Planted::start(&["stays"]).await;
    let pid = server.pid();
    let only = ["--only", "signal/1,listener/4,proc/2", "--grace", "500ms"];
    let output = verify(&[&["--pid", &pid, "--json", "-"][..], &only].concat());

    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let document = results(&output);
    assert_seen(
        &document,
        &[
            (
                "signal/1",
                "fail",
                "still there after 500ms, and left alone",
            ),
            ("proc/2", "inconclusive", "it did not end"),
        ],
    );
    assert_eq!(document["stayed"], true);
    let told = stderr(&output);
    assert!(told.contains(&format!("process {pid} outstayed")), "{told}");
    assert!(server.runs().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_ends_this_command_does_not_end_what_it_has_attached_to() {
    let mut server = Planted::start(&["stays"]).await;
    let pid = server.pid();
    let spawn = Spawn::new(cargo_bin!("sundown")).args(["verify", "--fast", "/fast"]);
    let spawn = spawn.args(["--only", "signal/1", "--grace", "60s", "--pid", &pid]);
    let mut verify = spawn.start().unwrap();
    verify
        .wait_output("is to get SIGTERM", LIMIT)
        .await
        .unwrap();

    verify.signal(libc::SIGTERM).unwrap();

    let exit = verify.wait_exit(LIMIT).await.unwrap();
    assert_eq!(exit.ended, Ended::Code(2));
    let told = verify.stderr();
    assert!(
        told.contains(&format!("process {pid} was left as it is")),
        "{told}"
    );
    assert!(server.runs().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_gets_the_signal_unless_it_is_our_own() {
    let mut server = Planted::start(&[]).await;
    let group = ["--signal-to", "group", "--only", "signal/1"];
    let output = verify(&[&["--pid", &server.pid()][..], &group].concat());
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains("is in the process group of this command"),
        "{told}"
    );
    assert!(server.runs().await);

    let address = free_port().unwrap();
    let spawn = Spawn::new(bin_path("examples/planted")).arg(address.port().to_string());
    let mut leader = spawn.own_group().start().unwrap();
    leader.wait_listening(address, LIMIT).await.unwrap();
    let pid = leader.id().to_string();
    let output = verify(&[&["--pid", &pid][..], &group].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let exit = leader.wait_exit(LIMIT).await.unwrap();
    assert_eq!(exit.ended, Ended::Code(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_by_its_address_is_stopped_by_a_command() {
    let mut server = Planted::start(&[]).await;
    let stop = format!("sh -c 'kill -TERM {}'", server.pid());
    let only = ["--only", "signal,listener,proc,http1/15", "--json", "-"];
    let output = verify(&[&["--url", &server.url(), "--stop", &stop][..], &only].concat());

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let document = results(&output);
    assert_seen(
        &document,
        &[
            ("signal/1", "pass", "exited after"),
            ("http1/15", "pass", "0 of "),
            ("listener/4", "pass", "refused at once"),
            ("signal/2", "skipped", "give the command instead of --url"),
            (
                "listener/2",
                "skipped",
                "needs the process itself, to signal, freeze or watch it",
            ),
            ("proc/2", "skipped", "the process"),
            ("proc/1", "skipped", "needs all its processes"),
        ],
    );
    assert_eq!(document["target"]["stop"][0], "sh");
    assert_eq!(server.ended().await, Ended::Code(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_started_again_is_stopped_as_often_as_checks_need_and_left_running() {
    let mut server = Planted::start(&[]).await;
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("again.pid");
    std::fs::write(&file, server.pid()).unwrap();
    let (shown, port) = (file.display(), server.address.port());
    let planted = bin_path("examples/planted");
    // As `docker stop` does, it returns when the process is gone: one that has made its listener deaf
    // refuses connections, and holds the port still. What is not reaped has no executable.
    let gone = "while [ -e /proc/$p/exe ]; do sleep 0.01; done";
    let stop = format!("sh -c 'p=$(cat {shown}); kill -TERM $p; {gone}'");
    let again = format!("sh -c '{} {port} & echo $! >{shown}'", planted.display());
    let url = server.url();
    let target = ["--url", &url, "--stop", &stop, "--again", &again];
    let only = ["--only", "signal/1,signal/8,http1/9", "--slow", "/slow"];
    let output = verify(&[&target[..], &only, &["--runs", "2"]].concat());

    let last: libc::pid_t = std::fs::read_to_string(&file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let is_running = TcpStream::connect(server.address).is_ok();
    // SAFETY: kill(2) takes two numbers; the process is the one that was started last, and was ours.
    unsafe { libc::kill(last, libc::SIGKILL) };
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).ends_with("3 pass\n"), "{}", stdout(&output));
    assert!(is_running, "it is left running");
    assert_eq!(server.ended().await, Ended::Code(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_command_that_fails_says_what_it_said() {
    let mut server = Planted::start(&[]).await;
    let stop = "sh -c 'echo no such container >&2; exit 1'";
    let output = verify(&["--url", &server.url(), "--stop", stop, "--only", "signal/1"]);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    let expected = "ended with exit code 1: no such container";
    assert!(told.contains(expected), "{told}");
    assert!(server.runs().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_says_how_it_is_reached_and_stopped() {
    let mut server = Planted::start(&[]).await;
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("attach.toml");
    let text = format!(
        "url = {:?}\nstop = \"kill -TERM {}\"\n",
        server.url(),
        server.pid()
    );
    std::fs::write(&file, text).unwrap();
    let output = verify(&["--config", file.to_str().unwrap(), "--only", "signal/1"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(server.ended().await, Ended::Code(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_attached_to_gets_one_clear_line_and_exit_code_2() {
    let mut server = Planted::start(&[]).await;
    let idle = Spawn::new("sleep").arg("60").start().unwrap();
    // Whoever holds two listeners, such as this test.
    let two = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let (pid, idle, own) = (
        server.pid(),
        idle.id().to_string(),
        std::process::id().to_string(),
    );
    let absent = format!("http://{}", free_port().unwrap());
    let table: &[(&[&str], &str)] = &[
        (&["--pid", "1"], "process 1 is the init"),
        (
            &["--pid", "4294967295"],
            "no process has the PID 4294967295",
        ),
        (&["--pid", &idle], "(sleep) listens nowhere: give the PID"),
        (&["--pid", &own], "say by --url which is meant"),
        (
            &["--pid", &pid, "--url", &absent],
            "nobody takes a connection on",
        ),
        (
            &["--pid", &pid, "--runs", "2"],
            "--runs 2 needs a start for each run: give the command instead of --pid",
        ),
        (
            &["--url", &absent, "--stop", "true", "--runs", "2"],
            "--runs 2 needs a start for each run: say how to start it again, by --again",
        ),
        (&["--url", &absent], "--url needs to know how it is stopped"),
        (
            &["--stop", "true"],
            "--stop needs to know where it is reached",
        ),
        (
            &["--url", &absent, "--stop", "true"],
            "nobody takes a connection on",
        ),
    ];
    for (arguments, expected) in table {
        let output = verify(arguments);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.starts_with("error: "), "{arguments:?}: {told}");
        assert!(told.contains(expected), "{arguments:?}: {told}");
        assert_eq!(told.trim_end().lines().count(), 1, "{arguments:?}: {told}");
    }
    drop(two);
    assert!(server.runs().await);
}

#[test]
fn this_command_does_not_stop_itself() {
    // The shell's PID is that of the command that it becomes.
    let script = r#"exec "$0" verify --pid $$"#;
    let verify = Command::new("sh")
        .args(["-c", script])
        .arg(cargo_bin!("sundown"))
        .output();
    let output = verify.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = stderr(&output);
    assert!(told.contains("is this command itself"), "{told}");
}

#[test]
fn targets_exclude_one_another() {
    for arguments in [
        &["--pid", "5", "--", "true"][..],
        &["--pid", "5", "--unit", "web"],
        &["--unit", "web", "--stop", "true"],
        &["--url", "http://a", "--stop", "true", "--signal", "INT"],
        &["--url", "ftp://a", "--stop", "true"],
    ] {
        let output = verify(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).starts_with("error: "), "{arguments:?}");
    }
}
