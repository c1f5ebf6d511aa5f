//! Signals and settings from the first instant on.

mod trial;

use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Child;

use sundown_verify::process::free_port;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use trial::{LIMIT, Trial, run, spawn};

const TERM: i32 = libc::SIGTERM;

#[tokio::test]
async fn a_signal_that_the_parent_blocked_is_heard_even_before_main() {
    let mut process = spawn("")
        .blocked_signals([TERM, libc::SIGINT])
        .start()
        .unwrap();
    process.signal(TERM).unwrap();
    process.wait_exit(LIMIT).await.unwrap();
    let said = process.stderr();
    assert!(said.contains("stopped in"), "{said}");
}

#[tokio::test]
async fn each_termination_signal_stops_cleanly() {
    for signal in [TERM, libc::SIGINT, libc::SIGQUIT] {
        let mut trial = Trial::start().await;
        trial.signal(signal);
        assert_eq!(trial.exit().await.0, 0);
    }
}

#[tokio::test]
async fn a_signal_while_starting_gives_up_the_start() {
    let mut process = spawn("never-starts").start().unwrap();
    wait_for_handlers(process.id());
    process.signal(TERM).unwrap();
    let exit = process.wait_exit(LIMIT).await.unwrap();
    assert_eq!(
        exit.ended,
        sundown_verify::process::Ended::Code(0),
        "{}",
        process.stderr()
    );
    assert!(!process.stderr().contains("ready"), "{}", process.stderr());
}

/// Waits until SIGTERM is caught: `SigCgt` in /proc/PID/status.
fn wait_for_handlers(pid: u32) {
    let caught = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .unwrap()
            .trim();
        u64::from_str_radix(mask, 16).unwrap() & (1 << (TERM - 1)) != 0
    };
    while !caught() {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn the_second_signal_hurries_and_still_releases() {
    let mut trial = Trial::of(spawn("releases")).await;
    let _client = trial.ask("/patient").await;
    let _never = trial.ask("/never").await;
    trial.says("patient began").await;
    trial.signal(TERM);
    trial.says("again to hurry").await;
    trial.signal(TERM);
    let (code, said) = trial.exit().await;
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("released oldest"), "{said}");
}

#[tokio::test]
async fn the_third_signal_ends_the_process_even_when_every_worker_spins() {
    let mut trial = Trial::start().await;
    let mut clients = Vec::new();
    for _ in 0..std::thread::available_parallelism().unwrap().get() + 1 {
        clients.push(trial.ask("/spin").await);
    }
    trial.says("spin began").await;
    trial.signal(TERM);
    trial.says("again to hurry").await;
    trial.signal(TERM);
    trial.says("a third ends").await;
    trial.signal(libc::SIGINT);
    let (code, said) = trial.exit().await;
    assert_eq!(code, 130, "{said}");
    assert!(said.contains("GET /spin"), "{said}");
}

#[tokio::test]
async fn a_bad_setting_is_one_line_and_code_2_and_starts_nothing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    let taken_text = taken.1.to_string();
    let table = [
        ("SUNDOWN_GRACE", "soon", "SUNDOWN_GRACE=soon: "),
        ("SUNDOWN_GRACE", "0s", "grace (0s)"),
        (
            "SUNDOWN_LAME_DUCK",
            "1h",
            "lame_duck (1h) does not fit into grace (25s)",
        ),
        ("SUNDOWN_RELEASE", "-1s", "SUNDOWN_RELEASE=-1s: "),
        ("SUNDOWN_MERCY", "5", "SUNDOWN_MERCY=5: "),
        ("SUNDOWN_LINGER", "", "SUNDOWN_LINGER=: "),
        ("SUNDOWN_REPORT", "", "SUNDOWN_REPORT=: "),
        ("TRIAL_ADDRESS", "nowhere", "cannot use address \"nowhere\""),
        ("TRIAL_ADDRESS", "127.0.0.1:99999", "cannot use address"),
        (
            "TRIAL_ADDRESS",
            "192.0.2.1:80",
            "no interface of this machine",
        ),
        ("TRIAL_ADDRESS", &taken_text, "choose another port"),
    ];
    for (name, value, expected) in table {
        let (code, said) = run(spawn("").env(name, value)).await;
        assert_eq!(code, 2, "{name}={value}: {said}");
        assert_eq!(said.lines().count(), 1, "{name}={value}: {said}");
        assert!(
            said.starts_with("error: ") && said.contains(expected),
            "{said}"
        );
    }
    for (mode, expected) in [
        ("nothing", "nothing to do"),
        ("two-of-a-name", "two listeners are named http"),
    ] {
        let (code, said) = run(spawn(mode)).await;
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn a_socket_passed_by_listen_fds_is_used_and_left_to_its_owner() {
    let listener = std::net::TcpListener::bind(free_port().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut child = with_socket(listener.as_raw_fd());
    let mut client = trial::Client::to(address).await;
    client.send(&trial::get("/")).await;
    assert_eq!(client.answer().await.1, "ok");
    drop(client);
    end(&mut child);
    // Its owner still listens: a connect is queued, not refused.
    assert!(tokio::net::TcpStream::connect(address).await.is_ok());
}

#[tokio::test]
async fn a_passed_unix_socket_keeps_its_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("passed");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut child = with_socket(listener.as_raw_fd());
    let mut client = UnixStream::connect(&path).await.unwrap();
    let request = "GET / HTTP/1.1\r\nhost: trial\r\nconnection: close\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut seen = String::new();
    client.read_to_string(&mut seen).await.unwrap();
    assert!(seen.ends_with("ok"), "{seen}");
    end(&mut child);
    assert!(UnixStream::connect(&path).await.is_ok());
}

/// Starts a trial that is passed this socket.
fn with_socket(fd: RawFd) -> Child {
    let mut child = std::process::Command::new("sh");
    // The shell sets the PID that exec keeps.
    child.args([
        "-c",
        "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http exec \"$0\"",
    ]);
    child.arg(trial::spawn_path());
    // SAFETY: dup2 is async-signal-safe; descriptor 3 is the first that is passed.
    unsafe {
        child.pre_exec(move || match libc::dup2(fd, 3) {
            3 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    child.spawn().unwrap()
}

/// Stops it, and waits for its end.
fn end(child: &mut Child) {
    // SAFETY: the child is not reaped yet, so the PID is its own.
    unsafe { libc::kill(child.id() as i32, TERM) };
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
