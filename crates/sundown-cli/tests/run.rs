//! `sundown run` on real processes: how it stops them, what it says, and what it leaves behind.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use sundown_testkit::bin_path;
use sundown_verify::Process;
use sundown_verify::process::{Ended, Spawn, free_port};
use tempfile::TempDir;

/// Longer than any of these tests waits when all is well.
const LIMIT: Duration = Duration::from_secs(60);

/// A guard and what it guards.
struct Guarded {
    guard: Process,
    address: SocketAddr,
    pid: i32,
}

impl Guarded {
    /// Guards a server whose fault is known.
    async fn planted(options: &[&str], fault: &str) -> Self {
        let address = free_port().unwrap();
        let port = address.port().to_string();
        let planted = bin_path("examples/planted");
        let mut guard = guard(options)
            .arg(planted)
            .args([&port, fault])
            .start()
            .unwrap();
        let pid = guard.wait_line("the application is PID ", LIMIT).await;
        guard
            .wait_output("the application listens on", LIMIT)
            .await
            .unwrap();
        Self {
            guard,
            address,
            pid: pid.unwrap().parse().unwrap(),
        }
    }

    fn ask(&self, path: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.address).unwrap();
        write!(client, "GET {path} HTTP/1.1\r\nhost: guarded\r\n\r\n").unwrap();
        client
    }

    async fn exit(&mut self) -> (Ended, String) {
        let exit = self.guard.wait_exit(LIMIT).await.unwrap();
        (exit.ended, self.guard.stderr())
    }

    fn is_there(&self) -> bool {
        Path::new("/proc").join(self.pid.to_string()).exists()
    }
}

fn guard(options: &[&str]) -> Spawn {
    Spawn::new(cargo_bin!("sundown"))
        .arg("run")
        .args(options)
        .arg("--")
}

/// Runs a command that ends by itself.
async fn run(options: &[&str], command: &[&str]) -> (Ended, String) {
    let mut guard = guard(options).args(command).start().unwrap();
    let exit = guard.wait_exit(LIMIT).await.unwrap();
    (exit.ended, guard.stderr())
}

fn rest(mut client: TcpStream) -> String {
    let mut seen = String::new();
    client.read_to_string(&mut seen).unwrap();
    seen
}

#[tokio::test]
async fn a_request_is_finished_before_the_application_hears_of_the_stop() {
    // It gives what is in flight no time.
    let mut guarded = Guarded::planted(&["--quiet", "200ms"], "impatient").await;
    let client = guarded.ask("/slow");
    guarded.guard.signal(libc::SIGTERM).unwrap();
    let seen = rest(client);
    assert!(seen.ends_with("ok"), "{seen}");
    let (ended, said) = guarded.exit().await;
    assert_eq!(ended, Ended::Code(0), "{said}");
    assert!(!guarded.is_there());
}

#[tokio::test]
async fn who_waits_in_the_queue_is_served_by_a_server_that_would_not() {
    let planted = bin_path("examples/planted");
    let sundown = cargo_bin!("sundown");
    let verify = |guard: &[&str]| {
        let mut command = vec![sundown.to_str().unwrap(), "verify"];
        command.extend(["--fast", "/fast", "--only", "listener/2", "--"]);
        command.extend(guard);
        command.extend([planted.to_str().unwrap(), "{port}", "backlog"]);
        let mut words = command.into_iter();
        std::process::Command::new(words.next().unwrap())
            .args(words)
            .output()
            .unwrap()
    };
    let alone = verify(&[]);
    assert_eq!(alone.status.code(), Some(1));
    let guard = [sundown.to_str().unwrap(), "run", "--quiet", "200ms", "--"];
    let guarded = verify(&guard);
    let said = String::from_utf8_lossy(&guarded.stdout);
    assert_eq!(guarded.status.code(), Some(0), "{said}");
}

#[tokio::test]
async fn what_does_not_end_in_time_is_killed_and_named() {
    let options = ["--quiet", "200ms", "--drain", "1s"];
    let mut guarded = Guarded::planted(&options, "none").await;
    let client = guarded.ask("/endless");
    let peer = client.local_addr().unwrap();
    guarded.guard.signal(libc::SIGTERM).unwrap();
    let (ended, said) = guarded.exit().await;
    assert_eq!(ended, Ended::Code(4), "{said}");
    let named = format!("connection from {peer} to {}", guarded.address);
    assert!(said.contains(&named), "{said}");
    assert!(!guarded.is_there());

    let mut guarded = Guarded::planted(&options, "stays").await;
    guarded.guard.signal(libc::SIGTERM).unwrap();
    let (ended, said) = guarded.exit().await;
    assert_eq!(ended, Ended::Code(4), "{said}");
    assert!(said.contains("told to stop, did not end"), "{said}");
    assert!(!guarded.is_there());
}

#[tokio::test]
async fn a_second_signal_hurries() {
    let mut guarded = Guarded::planted(&["--quiet", "1h", "--drain", "2h"], "none").await;
    let _idle = guarded.ask("/fast");
    guarded.guard.signal(libc::SIGTERM).unwrap();
    guarded
        .guard
        .wait_output("again to hurry", LIMIT)
        .await
        .unwrap();
    guarded.guard.signal(libc::SIGTERM).unwrap();
    let (ended, said) = guarded.exit().await;
    assert_eq!(ended, Ended::Code(4), "{said}");
    assert!(!guarded.is_there());
}

#[tokio::test]
async fn a_command_that_ends_by_itself_gives_its_exit_code() {
    let folder = TempDir::new().unwrap();
    let plain = folder.path().join("plain");
    fs::write(&plain, "not a program").unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    let table: [(&[&str], i32, &str); 5] = [
        (&["sh", "-c", "exit 7"], 7, ""),
        (&["sh", "-c", "kill -KILL $$"], 137, ""),
        (&["sh", "-c", "exit 0"], 0, ""),
        (
            &["no-such-program"],
            127,
            "error: no-such-program cannot be started",
        ),
        (&[plain.to_str().unwrap()], 126, "Permission denied"),
    ];
    for (command, code, line) in table {
        let (ended, said) = run(&[], command).await;
        assert_eq!(ended, Ended::Code(code), "{command:?}: {said}");
        assert!(said.contains(line), "{command:?}: {said}");
    }
}

#[tokio::test]
async fn what_a_command_leaves_running_is_guarded_on_and_stopped_with_it() {
    let address = free_port().unwrap();
    let planted = bin_path("examples/planted");
    let script = format!("{} {} & exit 0", planted.display(), address.port());
    let mut guard = guard(&["--quiet", "200ms"])
        .args(["sh", "-c", &script])
        .start()
        .unwrap();
    guard.wait_output("is guarded on", LIMIT).await.unwrap();
    guard.wait_output("listens on", LIMIT).await.unwrap();
    guard.signal(libc::SIGTERM).unwrap();
    let exit = guard.wait_exit(LIMIT).await.unwrap();
    assert_eq!(exit.ended, Ended::Code(0), "{}", guard.stderr());
    assert!(TcpStream::connect(address).is_err());
}

#[tokio::test]
async fn without_its_guard_the_application_lives_or_ends_as_was_wished() {
    let mut guarded = Guarded::planted(&[], "none").await;
    guarded.guard.signal(libc::SIGKILL).unwrap();
    guarded.exit().await;
    while guarded.is_there() {
        tokio::time::sleep(Duration::from_millis(10)).await; // tidy: whose end nobody is told
    }

    let mut guarded = Guarded::planted(&["--on-guard-death", "keep"], "none").await;
    guarded.guard.signal(libc::SIGKILL).unwrap();
    guarded.exit().await;
    let client = guarded.ask("/fast");
    assert!(guarded.is_there());
    // SAFETY: it is looked at in the line before, and ends by nobody else.
    unsafe { libc::kill(guarded.pid, libc::SIGTERM) };
    rest(client);
    while guarded.is_there() {
        tokio::time::sleep(Duration::from_millis(10)).await; // tidy: whose end nobody is told
    }
}
