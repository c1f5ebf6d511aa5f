//! `sundown run` with other settings than its usual ones: when a generation is ready, how it is started, and
//! what is told of it.

mod guarded;

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use sundown_testkit::bin_path;
use sundown_verify::Process;
use sundown_verify::process::{Ended, free_port};
use tempfile::TempDir;

use self::guarded::{
    Guarded, LIMIT, Load, ask, guard, listens, pid_of, planted, run, run_dir, signal, visit,
};

/// A sundown service takes sockets that are passed, and says when it is ready.
fn trial() -> PathBuf {
    bin_path("examples/trial")
}

async fn stop(mut guard: Process) -> String {
    guard.signal(libc::SIGTERM).unwrap();
    let exit = guard.wait_exit(LIMIT).await.unwrap();
    assert_eq!(exit.ended, Ended::Code(0), "{}", guard.stderr());
    guard.stderr()
}

#[tokio::test]
async fn who_listens_and_does_not_accept_is_not_ready_by_tcp() {
    let options = [
        "--quiet",
        "100ms",
        "--ready",
        "tcp",
        "--ready-within",
        "8s",
        "--name",
        "by-tcp",
    ];
    let mut guarded = Guarded::planted(&options, "none").await;
    guarded
        .guard
        .wait_output("by-tcp: ready", LIMIT)
        .await
        .unwrap();
    guarded.guard.signal(libc::SIGHUP).unwrap();
    let next = pid_of(&mut guarded.guard, 2).await;
    signal(next, libc::SIGSTOP);
    guarded
        .guard
        .wait_output("generation 1 serves on", LIMIT)
        .await
        .unwrap();
    visit(guarded.address).unwrap();
    let (code, told, _) = ask(&["restart", "--wait", "--name", "by-tcp"]);
    assert_eq!(
        (code, told.as_str()),
        (0, "generation 3 takes what connects\n")
    );
    visit(guarded.address).unwrap();
    stop(guarded.guard).await;
}

#[tokio::test]
async fn a_url_of_the_next_generations_own_decides_whether_it_is_ready() {
    let address = free_port().unwrap();
    let port = address.port().to_string();
    let planted = bin_path("examples/planted").display().to_string();
    let store = tempfile::NamedTempFile::new().unwrap();
    let store = store.path().display().to_string();
    for (path, within, ready) in [("fast", "60s", true), ("ledger/not-there", "2s", false)] {
        let url = format!("http://localhost:{port}/{path}");
        let mut guard = guard(&[
            "--quiet",
            "100ms",
            "--ready",
            &url,
            "--ready-within",
            within,
        ])
        .args([planted.as_str(), &port, "none", &store])
        .start()
        .unwrap();
        guard
            .wait_output("generation 1 listens on", LIMIT)
            .await
            .unwrap();
        let load = Load::on(address);
        guard.signal(libc::SIGHUP).unwrap();
        let outcome = match ready {
            true => "generation 1 has ended after",
            false => "restart failed: it was not ready within 2s; generation 1 serves on",
        };
        guard.wait_output(outcome, LIMIT).await.unwrap();
        let (answered, lost) = load.end();
        assert!(
            answered > 0 && lost.is_empty(),
            "{path}: {answered}, {lost:?}"
        );
        stop(guard).await;
    }
}

#[tokio::test]
async fn a_service_that_takes_sockets_is_restarted_stopped_and_covered() {
    let address = free_port().unwrap();
    let passed = format!("http={address}");
    let options = [
        "--listen", &passed, "--ready", "notify", "--quiet", "100ms", "--name", "passed",
    ];
    let mut guard = guard(&options).arg(trial()).start().unwrap();
    guard.wait_output("passed: ready", LIMIT).await.unwrap();
    let load = OnRoot::start(address);
    for generation in 2..=4 {
        let (code, told, said) = ask(&["restart", "--wait", "--name", "passed"]);
        let expected = format!("generation {generation} takes what connects\n");
        assert_eq!((code, told), (0, expected), "{said}");
    }
    let over = "generation 3 has ended after ";
    let over = guard.wait_line(over, LIMIT).await.unwrap();
    assert!(over.ends_with("nothing was cut off"), "{over}");
    assert_eq!(load.end(), 0);
    let current = pid_of(&mut guard, 4).await;
    signal(current, libc::SIGKILL);
    pid_of(&mut guard, 5).await;
    assert_eq!(get(address, "/").unwrap(), "ok");
    let (_, status, _) = ask(&["status", "--name", "passed"]);
    assert!(status.contains("it says: ready"), "{status}");
    stop(guard).await;
}

/// Asks for `/` again and again; counts what was not answered.
struct OnRoot {
    over: std::sync::Arc<std::sync::atomic::AtomicBool>,
    client: std::thread::JoinHandle<usize>,
}

impl OnRoot {
    fn start(address: SocketAddr) -> Self {
        let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let until = over.clone();
        let client = std::thread::spawn(move || {
            let mut lost = 0;
            while !until.load(std::sync::atomic::Ordering::Relaxed) {
                lost += usize::from(get(address, "/").is_err());
            }
            lost
        });
        Self { over, client }
    }

    fn end(self) -> usize {
        self.over.store(true, std::sync::atomic::Ordering::Relaxed);
        self.client.join().unwrap()
    }
}

/// The body of an answer.
fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    use std::io::{Read as _, Write as _};
    let mut client = std::net::TcpStream::connect(address)?;
    write!(
        client,
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned());
    body.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

#[tokio::test]
async fn without_overlap_the_next_one_starts_after_the_end_and_who_connects_waits() {
    let options = ["--quiet", "100ms", "--no-overlap", "--name", "single"];
    let guarded = Guarded::planted(&options, "none").await;
    let load = Load::on(guarded.address);
    for generation in 2..=4 {
        let (code, told, said) = ask(&["restart", "--wait", "--name", "single"]);
        let expected = format!("generation {generation} takes what connects\n");
        assert_eq!((code, told), (0, expected), "{said}");
    }
    let (answered, lost) = load.end();
    assert!(answered > 50 && lost.is_empty(), "{answered}, {lost:?}");
    let said = guarded.guard.stderr();
    let at = |line: &str| said.find(line).unwrap_or_else(|| panic!("{line}: {said}"));
    for old in 1..=3 {
        let (ended, begun) = (
            format!("generation {old} has ended"),
            format!("generation {} is PID", old + 1),
        );
        assert!(at(&ended) < at(&begun), "{said}");
    }
    stop(guarded.guard).await;
}

#[tokio::test]
async fn a_port_that_the_system_chose_is_not_expected_of_the_next_one() {
    let address = free_port().unwrap();
    let mut guard = guard(&[
        "--quiet",
        "100ms",
        "--ready-within",
        "20s",
        "--name",
        "two-ports",
    ])
    .arg(trial())
    .env("TRIAL_ADDRESS", address.to_string())
    .env("SUNDOWN_ADMIN", "127.0.0.1:0")
    .start()
    .unwrap();
    guard.wait_output("two-ports: ready", LIMIT).await.unwrap();
    let (code, told, said) = ask(&["restart", "--wait", "--name", "two-ports"]);
    assert_eq!(
        (code, told.as_str()),
        (0, "generation 2 takes what connects\n"),
        "{said}"
    );
    assert_eq!(get(address, "/").unwrap(), "ok");
    stop(guard).await;
}

#[tokio::test]
async fn systemd_hears_that_the_service_is_ready_only_once_it_listens() {
    let folder = TempDir::new().unwrap();
    let (notify, gate) = (folder.path().join("notify"), folder.path().join("gate"));
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_nonblocking(true).unwrap();
    let heard = || {
        let mut bytes = [0; 1024];
        let mut all = String::new();
        while let Ok(count) = manager.recv(&mut bytes) {
            all.push_str(&String::from_utf8_lossy(&bytes[..count]));
            all.push('\n');
        }
        all
    };
    let made = std::process::Command::new("mkfifo")
        .arg(&gate)
        .status()
        .unwrap();
    assert!(made.success());
    let script = format!(
        "read line < {}; exec {} {}",
        gate.display(),
        bin_path("examples/planted").display(),
        free_port().unwrap().port()
    );
    let mut guard = guard(&["--quiet", "100ms", "--name", "notifies"])
        .args(["sh", "-c", &script])
        .env("NOTIFY_SOCKET", &notify)
        .start()
        .unwrap();
    guard.wait_output("notifies: started", LIMIT).await.unwrap();
    pid_of(&mut guard, 1).await;
    assert!(!heard().contains("READY=1"));
    fs::write(&gate, "go\n").unwrap();
    guard.wait_output("notifies: ready", LIMIT).await.unwrap();
    stop(guard).await;
    let heard = heard();
    assert!(
        heard.contains("READY=1") && heard.contains("STOPPING=1"),
        "{heard}"
    );
}

#[tokio::test]
async fn a_signal_that_is_not_the_guards_is_the_applications() {
    let script =
        "trap 'exit 5' USR1; trap 'exit 6' RTMAX; echo there; while :; do sleep 0.05; done";
    for (number, code) in [(libc::SIGUSR1, 5), (libc::SIGRTMAX(), 6)] {
        let mut guard = guard(&["--restart", "no"])
            .args(["bash", "-c", script])
            .start()
            .unwrap();
        guard.wait_output("there", LIMIT).await.unwrap();
        guard.signal(number).unwrap();
        let exit = guard.wait_exit(LIMIT).await.unwrap();
        assert_eq!(exit.ended, Ended::Code(code), "{}", guard.stderr());
    }
}

#[tokio::test]
async fn a_file_says_what_flags_do_not() {
    let folder = TempDir::new().unwrap();
    let (settings, variables) = (
        folder.path().join("sundown.toml"),
        folder.path().join("env"),
    );
    fs::write(&variables, "COLOR=red\n").unwrap();
    let text = format!(
        "[run]\nname = 'by-file'\ncommand = ['sh', '-c', 'echo $COLOR; pwd; exit 7']\n\
         cwd = {:?}\nenv-file = {variables:?}\noutput = 'json'\nquiet = '100ms'\n",
        folder.path()
    );
    fs::write(&settings, &text).unwrap();
    let run = |options: &[&str]| {
        std::process::Command::new(assert_cmd::cargo::cargo_bin!("sundown"))
            .args(["run", "--config", settings.to_str().unwrap()])
            .args(options)
            .output()
            .unwrap()
    };
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(7));
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let place = fs::canonicalize(folder.path()).unwrap();
    let expected = ["red", place.to_str().unwrap()];
    assert_eq!(
        lines
            .iter()
            .map(|line| &line["message"])
            .collect::<Vec<_>>(),
        expected
    );
    for line in &lines {
        assert_eq!(
            (&line["service"], &line["generation"]),
            (&"by-file".into(), &1.into())
        );
        assert_eq!(line["stream"], "stdout");
    }
    let output = run(&[
        "--output",
        "inherit",
        "--",
        "sh",
        "-c",
        "echo $COLOR; exit 8",
    ]);
    assert_eq!(output.status.code(), Some(8));
    assert_eq!(output.stdout, b"red\n");

    fs::write(&settings, "[run]\nreedy = 'tcp'\n").unwrap();
    let output = run(&["--", "true"]);
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.starts_with("error: ") && told.contains("line 2") && told.lines().count() == 1,
        "{told}"
    );
}

#[tokio::test]
async fn settings_that_do_not_go_together_are_told_in_one_line() {
    for (options, told) in [
        (&["--mode", "listen-fds"][..], "say which by --listen"),
        (
            &["--mode", "kernel", "--listen", "127.0.0.1:1"],
            "use --mode listen-fds",
        ),
        (
            &["--output", "json", "--on-guard-death", "keep"],
            "leave on-guard-death at stop",
        ),
        (&["--env-file", "/nowhere/env"], "/nowhere/env: "),
        (&["--cwd", "/nowhere"], "/nowhere"),
    ] {
        let (ended, said) = run(options, &["true"]).await;
        assert_eq!(ended, Ended::Code(2), "{said}");
        let lines = said
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect::<Vec<_>>();
        assert!(
            lines.len() == 1 && lines[0].contains(told),
            "{options:?}: {said}"
        );
    }
}

#[tokio::test]
async fn commands_are_run_before_the_application_is_told_and_when_it_has_ended() {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log").display().to_string();
    let options = [
        "--pre-shutdown",
        &format!("echo before $SUNDOWN_SERVICE >> {log}"),
        "--pre-shutdown",
        &format!("echo again >> {log}; kill -0 $(cat {log}.pid) && echo it lives >> {log}"),
        "--post-cleanup",
        &format!("kill -0 $(cat {log}.pid) || echo it has ended >> {log}"),
        "--post-cleanup",
        &format!("sleep 60 & echo $! > {log}.sleep; wait"),
        "--hook-timeout",
        "1s",
        "--name",
        "hooked",
    ];
    let script = format!(
        "echo $$ > {log}.pid; trap 'exit 0' TERM; echo there; while :; do sleep 0.05; done"
    );
    let mut guard = guard(&options).args(["sh", "-c", &script]).start().unwrap();
    guard.wait_output("there", LIMIT).await.unwrap();
    guard.signal(libc::SIGTERM).unwrap();
    let exit = guard.wait_exit(LIMIT).await.unwrap();
    let said = guard.stderr();
    // The last command does not end in its time.
    assert_eq!(exit.ended, Ended::Code(1), "{said}");
    let seen = fs::read_to_string(&log).unwrap();
    assert_eq!(
        seen, "before hooked\nagain\nit lives\nit has ended\n",
        "{said}"
    );
    let asleep = fs::read_to_string(format!("{log}.sleep")).unwrap();
    let state = fs::read_to_string(format!("/proc/{}/stat", asleep.trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
}

#[tokio::test]
async fn an_orphan_is_reaped_by_the_guard() {
    let folder = TempDir::new().unwrap();
    let orphan = folder.path().join("orphan");
    let leave = format!("sleep 0.1 & echo $! > {}", orphan.display());
    let options = [
        "--quiet",
        "100ms",
        "--drain",
        "50s",
        "--pre-shutdown",
        &leave,
    ];
    let mut guarded = Guarded::planted(&options, "none").await;
    let client = guarded.ask("/endless");
    guarded.guard.signal(libc::SIGTERM).unwrap();
    let gone = |orphan: &std::path::Path| {
        let pid = fs::read_to_string(orphan).unwrap_or_default();
        !pid.is_empty() && !std::path::Path::new("/proc").join(pid.trim()).exists()
    };
    while !gone(&orphan) {
        assert!(!guarded.guard.has_ended(), "{}", guarded.guard.stderr());
        tokio::task::yield_now().await;
    }
    guarded.guard.signal(libc::SIGTERM).unwrap();
    assert_eq!(guarded.exit().await.0, Ended::Code(4));
    drop(client);
}

#[tokio::test]
async fn those_who_run_it_are_told_by_http_how_it_is() {
    let admin = free_port().unwrap();
    let options = [
        "--quiet",
        "100ms",
        "--admin",
        &admin.to_string(),
        "--name",
        "watched",
    ];
    let mut guarded = Guarded::planted(&options, "none").await;
    guarded
        .guard
        .wait_output("watched: ready", LIMIT)
        .await
        .unwrap();
    assert!(get(admin, "/readyz").unwrap().starts_with("ready"));
    let (code, _, said) = ask(&["restart", "--wait", "--name", "watched"]);
    assert_eq!(code, 0, "{said}");
    let metrics = get(admin, "/metrics").unwrap();
    for line in [
        "sundown_generation 2",
        "sundown_restarts_done_total 1",
        "sundown_crashes_total 0",
    ] {
        assert!(
            metrics
                .lines()
                .any(|other| other.trim_end_matches(".0") == line),
            "{metrics}"
        );
    }
    stop(guarded.guard).await;
}

#[tokio::test]
async fn restarts_that_are_asked_for_during_one_are_one_more() {
    let (folder, address) = (TempDir::new().unwrap(), free_port().unwrap());
    let held = folder.path().join("held");
    // While the file is there no generation gets any further.
    let script = format!(
        "while [ -e {} ]; do sleep 0.05; done; exec {} {}",
        held.display(),
        planted(),
        address.port()
    );
    let options = ["--name", "coalesced", "--quiet", "100ms"];
    let mut guard = guard(&options).args(["sh", "-c", &script]).start().unwrap();
    listens(&mut guard, 1).await;
    fs::write(&held, "").unwrap();
    guard.signal(libc::SIGHUP).unwrap();
    pid_of(&mut guard, 2).await;
    let mut waiting = UnixStream::connect(run_dir().join("coalesced.sock")).unwrap();
    writeln!(waiting, r#"{{"restart":{{"wait":true}}}}"#).unwrap();
    for _ in 0..3 {
        let (code, _, said) = ask(&["restart", "--name", "coalesced"]);
        assert_eq!(code, 0, "{said}");
    }
    fs::remove_file(&held).unwrap();
    let takes = "generation 3 takes what connects";
    guard.wait_output(takes, LIMIT).await.unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(takes), "{answer}");
    let over = "generation 2 has ended after";
    guard.wait_output(over, LIMIT).await.unwrap();
    let said = stop(guard).await;
    assert!(!said.contains("generation 4"), "{said}");
}

#[tokio::test]
async fn a_stop_refuses_newcomers_while_an_older_generation_finishes() {
    let options = ["--name", "both", "--quiet", "100ms"];
    let mut guarded = Guarded::planted(&options, "none").await;
    let mut client = guarded.ask("/endless");
    guarded.guard.signal(libc::SIGHUP).unwrap();
    let takes = "generation 2 takes what connects";
    guarded.guard.wait_output(takes, LIMIT).await.unwrap();
    guarded.guard.signal(libc::SIGTERM).unwrap();
    // As soon as both listeners are deaf; an attempt that neither hears would wait for ever.
    let refused = loop {
        match TcpStream::connect_timeout(&guarded.address, LIMIT) {
            Ok(_) => {}
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(refused, ErrorKind::ConnectionRefused);
    // A second one hurries.
    guarded.guard.signal(libc::SIGTERM).unwrap();
    let (ended, said) = guarded.exit().await;
    assert_eq!(ended, Ended::Code(4), "{said}");
    let _ = client.read_to_end(&mut Vec::new());
}

#[tokio::test]
async fn the_last_report_is_told_by_status() {
    let options = ["--name", "reported", "--quiet", "100ms"];
    let mut guarded = Guarded::planted(&options, "none").await;
    guarded.guard.signal(libc::SIGHUP).unwrap();
    let over = "reported: generation 1 has ended after ";
    let report = guarded.guard.wait_line(over, LIMIT).await.unwrap();
    let (_, status, _) = ask(&["status", "--name", "reported"]);
    let expected = format!("last report: generation 1 has ended after {report}");
    assert!(status.contains(&expected), "{status}");
    stop(guarded.guard).await;
}

#[tokio::test]
async fn signals_are_passed_on_while_it_stops_too() {
    let address = free_port().unwrap();
    let script = format!(
        "trap 'echo heard' USR1; {} {} & while :; do wait; done",
        planted(),
        address.port()
    );
    let options = ["--name", "passes", "--quiet", "100ms"];
    let mut guard = guard(&options).args(["sh", "-c", &script]).start().unwrap();
    listens(&mut guard, 1).await;
    let mut client = TcpStream::connect(address).unwrap();
    write!(client, "GET /endless HTTP/1.1\r\nhost: guarded\r\n\r\n").unwrap();
    guard.signal(libc::SIGTERM).unwrap();
    let waits = "generation 1 waits for connection";
    guard.wait_output(waits, LIMIT).await.unwrap();
    guard.signal(libc::SIGUSR1).unwrap();
    guard.wait_output("heard", LIMIT).await.unwrap();
    guard.signal(libc::SIGTERM).unwrap();
    let exit = guard.wait_exit(LIMIT).await.unwrap();
    assert_eq!(exit.ended, Ended::Code(4), "{}", guard.stderr());
}

#[tokio::test]
async fn who_waits_for_a_slow_start_after_a_crash_is_served() {
    let (folder, address) = (TempDir::new().unwrap(), free_port().unwrap());
    let [begun, go] = ["begun", "go"].map(|name| folder.path().join(name));
    // Only the first generation starts at once.
    let script = format!(
        "if [ -e {begun} ]; then while [ ! -e {go} ]; do sleep 0.05; done; fi; touch {begun}; exec {} {}",
        planted(),
        address.port(),
        begun = begun.display(),
        go = go.display(),
    );
    let options = ["--name", "slow-start", "--quiet", "100ms"];
    let mut guard = guard(&options).args(["sh", "-c", &script]).start().unwrap();
    let first = pid_of(&mut guard, 1).await;
    listens(&mut guard, 1).await;
    signal(first, libc::SIGKILL);
    pid_of(&mut guard, 2).await;
    let waiting = std::thread::spawn(move || visit(address));
    tokio::time::sleep(Duration::from_secs(8)).await; // tidy: the guard looks at its queue within 5 s, and again 2 s later
    fs::write(&go, "").unwrap();
    waiting.join().unwrap().unwrap();
    let said = stop(guard).await;
    assert!(!said.contains("has closed it"), "{said}");
}

#[tokio::test]
async fn an_older_generation_finishes_when_the_one_after_it_has_ended() {
    let options = [
        "--name",
        "older",
        "--quiet",
        "100ms",
        "--restart",
        "no",
        "--drain",
        "4s",
    ];
    let mut guarded = Guarded::planted(&options, "none").await;
    let mut client = guarded.ask("/endless");
    guarded.guard.signal(libc::SIGHUP).unwrap();
    let second = pid_of(&mut guarded.guard, 2).await;
    let takes = "generation 2 takes what connects";
    guarded.guard.wait_output(takes, LIMIT).await.unwrap();
    signal(second, libc::SIGKILL);
    let refused = loop {
        match TcpStream::connect_timeout(&guarded.address, LIMIT) {
            Ok(_) => {}
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(refused, ErrorKind::ConnectionRefused);
    let (ended, said) = guarded.exit().await;
    assert_eq!(ended, Ended::Code(137), "{said}");
    assert!(said.contains("generation 1 has ended after"), "{said}");
    let _ = client.read_to_end(&mut Vec::new());
}
