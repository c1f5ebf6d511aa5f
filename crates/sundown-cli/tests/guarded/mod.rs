//! Guards, what they guard, and clients of theirs.

// Each test file takes what it needs.
#![allow(dead_code)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use sundown_testkit::bin_path;
use sundown_verify::Process;
use sundown_verify::process::{Ended, Spawn, free_port};
use tempfile::TempDir;

/// Longer than any of these tests waits when all is well.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A guard and what it guards.
pub(crate) struct Guarded {
    pub(crate) guard: Process,
    pub(crate) address: SocketAddr,
    pub(crate) pid: i32,
    /// By which the end of that process is heard of, though it is no child of ours.
    pidfd: OwnedFd,
}

impl Guarded {
    /// Guards a server whose fault is known.
    pub(crate) async fn planted(options: &[&str], fault: &str) -> Self {
        let address = free_port().unwrap();
        let port = address.port().to_string();
        let mut guard = guard(options)
            .arg(planted())
            .args([&port, fault])
            .start()
            .unwrap();
        let pid = pid_of(&mut guard, 1).await;
        listens(&mut guard, 1).await;
        Self {
            guard,
            address,
            pid,
            pidfd: pidfd(pid),
        }
    }

    pub(crate) fn ask(&self, path: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.address).unwrap();
        write!(client, "GET {path} HTTP/1.1\r\nhost: guarded\r\n\r\n").unwrap();
        client
    }

    pub(crate) async fn exit(&mut self) -> (Ended, String) {
        let exit = self.guard.wait_exit(LIMIT).await.unwrap();
        (exit.ended, self.guard.stderr())
    }

    /// Waits for the end of the process that was guarded first.
    pub(crate) async fn gone(&self) {
        end_of(self.pidfd.try_clone().unwrap()).await;
    }

    pub(crate) fn is_there(&self) -> bool {
        Path::new("/proc").join(self.pid.to_string()).exists()
    }
}

pub(crate) fn pidfd(pid: i32) -> OwnedFd {
    open_pidfd(pid).unwrap_or_else(|| panic!("process {pid} is there"))
}

/// None if it is gone.
fn open_pidfd(pid: i32) -> Option<OwnedFd> {
    // SAFETY: pidfd_open takes two numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    // SAFETY: the kernel has just opened it for us.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Waits for the end of a process that may be no child of ours.
pub(crate) async fn end_of(pidfd: OwnedFd) {
    let ended = tokio::task::spawn_blocking(move || {
        let mut waited = libc::pollfd {
            fd: pidfd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one `pollfd`, which outlives the call.
        unsafe { libc::poll(&raw mut waited, 1, LIMIT.as_millis() as i32) }
    });
    assert_eq!(ended.await.unwrap(), 1, "it lives on");
}

/// Waits until all that a guard has started and left is gone.
pub(crate) async fn nothing_is_left(guard: &Process) {
    let gone = async {
        // Whoever ends may have left others.
        while let Some(who) = guard.descendants().first() {
            if let Some(pidfd) = open_pidfd(who.pid as i32) {
                end_of(pidfd).await;
            }
        }
    };
    let gone = tokio::time::timeout(LIMIT, gone).await;
    assert!(gone.is_ok(), "{:?}", guard.descendants());
}

pub(crate) fn planted() -> String {
    bin_path("examples/planted").display().to_string()
}

/// The process that a generation became.
pub(crate) async fn pid_of(guard: &mut Process, generation: u32) -> i32 {
    let line = format!("generation {generation} is PID ");
    let pid = guard.wait_line(&line, LIMIT).await;
    let told = pid.unwrap_or_else(|error| panic!("{error}: {}", guard.stderr()));
    told.parse().unwrap()
}

/// Waits until a generation listens.
pub(crate) async fn listens(guard: &mut Process, generation: u32) {
    let line = format!("generation {generation} listens on");
    let listens = guard.wait_output(&line, LIMIT).await;
    listens.unwrap_or_else(|error| panic!("{error}: {}", guard.stderr()));
}

/// Sends a signal to a process that its guard, which lives, has named.
pub(crate) fn signal(pid: i32, signal: i32) {
    // SAFETY: kill takes two numbers; the guard reaps it only when it has ended.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

pub(crate) fn guard(options: &[&str]) -> Spawn {
    Spawn::new(cargo_bin!("sundown"))
        .env("SUNDOWN_RUN_DIR", run_dir())
        .arg("run")
        .args(options)
        .arg("--")
}

/// Where the guards of this test process have their sockets.
pub(crate) fn run_dir() -> PathBuf {
    static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().unwrap());
    // The first guard makes it.
    FOLDER.path().join("guards")
}

/// Asks a guard; returns the exit code, what is on stdout, and what is on stderr.
pub(crate) fn ask(words: &[&str]) -> (i32, String, String) {
    let output = std::process::Command::new(cargo_bin!("sundown"))
        .args(words)
        .env("SUNDOWN_RUN_DIR", run_dir())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Runs a command that ends by itself.
pub(crate) async fn run(options: &[&str], command: &[&str]) -> (Ended, String) {
    let mut guard = guard(options).args(command).start().unwrap();
    let exit = guard.wait_exit(LIMIT).await.unwrap();
    (exit.ended, guard.stderr())
}

pub(crate) fn rest(mut client: TcpStream) -> String {
    let mut seen = String::new();
    client.read_to_string(&mut seen).unwrap();
    seen
}

/// Connects, asks and reads, again and again, until it is told to stop; tells how each ended that was not
/// answered, and how many were.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(usize, Vec<ErrorKind>)>>,
}

impl Load {
    pub(crate) fn on(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let stop = stop.clone();
            thread::spawn(move || {
                let (mut answered, mut lost) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    match visit(address) {
                        Ok(()) => answered += 1,
                        Err(error) => lost.push(error.kind()),
                    }
                }
                (answered, lost)
            })
        };
        let clients = (0..4).map(client).collect();
        Self { stop, clients }
    }

    pub(crate) fn end(self) -> (usize, Vec<ErrorKind>) {
        self.stop.store(true, Ordering::Relaxed);
        let ends = self
            .clients
            .into_iter()
            .map(|client| client.join().unwrap());
        ends.fold((0, Vec::new()), |(all, mut losses), (answered, lost)| {
            losses.extend(lost);
            (all + answered, losses)
        })
    }
}

pub(crate) fn visit(address: SocketAddr) -> std::io::Result<()> {
    let mut client = TcpStream::connect(address)?;
    let request = b"GET /fast HTTP/1.1\r\nhost: guarded\r\n\r\n";
    client.write_all(request)?;
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\nok") {
        let mut bytes = [0; 1024];
        match client.read(&mut bytes)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => seen.extend(&bytes[..count]),
        }
    }
    Ok(())
}
