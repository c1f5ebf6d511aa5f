//! Restarts in place: no connection is refused, idle ones go on in the successor, and a successor that is of no
//! use changes nothing.

mod trial;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use sundown_testkit::Terminal;
use sundown_verify::process::Spawn;
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use trial::{Client, LIMIT, Trial, get, spawn, spawn_path};

/// A process that is no child of this one until its parent ends; gone when this is dropped.
struct Successor {
    pid: i32,
    gone: bool,
}

impl Successor {
    /// The process that answers on this connection.
    async fn answers(client: &mut Client) -> Self {
        let pid = pid(client).await;
        Self { pid, gone: false }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: it sends a signal to a process that is not waited for yet.
        assert_eq!(unsafe { libc::kill(self.pid, signal) }, 0);
    }

    /// Waits for its end, once its parent has ended; returns its exit code.
    fn ended(&mut self) -> Option<i32> {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let ended = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
        assert_eq!(ended, self.pid);
        self.gone = true;
        libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
    }

    /// Stops it by SIGTERM, and expects it to drain.
    async fn stop(mut self) {
        self.signal(libc::SIGTERM);
        let ended = tokio::task::spawn_blocking(move || self.ended());
        assert_eq!(
            tokio::time::timeout(LIMIT, ended).await.unwrap().unwrap(),
            Some(0)
        );
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if !self.gone {
            self.signal(libc::SIGKILL);
            self.ended();
        }
    }
}

/// Orphans of this process's children become its own.
fn adopt_orphans() {
    // SAFETY: it sets a flag of this process.
    let set = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    assert_eq!(set, 0);
}

async fn pid(client: &mut Client) -> i32 {
    let (head, body) = answer(client, "/pid").await;
    assert!(!head.contains("connection: close"), "{head}");
    body.parse().unwrap()
}

async fn answer(client: &mut Client, path: &str) -> (String, String) {
    client.send(&get(path)).await;
    client.answer().await
}

async fn start(mode: &str, folder: &Path) -> Trial {
    adopt_orphans();
    Trial::of(spawn(mode).env("TRIAL_FOLDER", folder)).await
}

/// Restarts it, and waits until it has ended.
async fn restart(trial: &mut Trial) -> String {
    trial.signal(libc::SIGUSR2);
    let (code, told) = trial.exit().await;
    assert_eq!(code, 0, "{told}");
    told
}

#[tokio::test]
async fn a_connection_outlives_the_process_that_accepted_it_several_times_in_a_row() {
    let folder = TempDir::new().unwrap();
    let mut trial = start("follows", folder.path()).await;
    let mut client = trial.connect().await;
    let first = pid(&mut client).await;
    let mut silent = trial.connect().await;
    let told = restart(&mut trial).await;
    assert!(told.contains("trial: restarted as PID "), "{told}");
    assert!(told.contains("released"), "{told}");
    assert!(!told.contains("deregistered"), "{told}");

    let mut before = first;
    for _ in 0..3 {
        let mut successor = Successor::answers(&mut client).await;
        assert_ne!(successor.pid, before);
        before = successor.pid;
        assert_eq!(pid(&mut silent).await, successor.pid);
        assert_eq!(pid(&mut trial.connect().await).await, successor.pid);
        successor.signal(libc::SIGUSR2);
        let ended = tokio::task::spawn_blocking(move || successor.ended());
        assert_eq!(ended.await.unwrap(), Some(0));
    }
    let last = Successor::answers(&mut client).await;
    assert_ne!(last.pid, before);
    last.stop().await;
    assert_eq!(client.rest().await.unwrap(), "");
}

#[tokio::test]
async fn what_is_under_way_is_finished_here_and_its_connection_travels_then() {
    let folder = TempDir::new().unwrap();
    let mut trial = start("follows", folder.path()).await;
    let mut client = trial.connect().await;
    let first = pid(&mut client).await;
    let mut slow = trial.ask("/slow?ms=1000").await;
    trial.says("slow began").await;
    let mut half = trial.connect().await;
    half.send("GET /pid HTTP/1.1\r\nho").await;
    trial.signal(libc::SIGUSR2);
    trial.says("restarted as PID").await;
    // Its head began here.
    half.send("st: trial\r\n\r\n").await;
    assert_eq!(half.answer().await.1, first.to_string());
    let (head, body) = slow.answer().await;
    assert_eq!(body, "ok");
    assert!(!head.contains("connection: close"), "{head}");
    assert_eq!(trial.exit().await.0, 0);

    let successor = Successor::answers(&mut client).await;
    assert_ne!(successor.pid, first);
    for client in [&mut slow, &mut half] {
        assert_eq!(pid(client).await, successor.pid);
    }
    successor.stop().await;
}

#[tokio::test]
async fn a_successor_that_fails_hangs_or_dies_changes_nothing() {
    adopt_orphans();
    let folder = TempDir::new().unwrap();
    let spawn = spawn("follows")
        .env("TRIAL_FOLDER", folder.path())
        .env("SUNDOWN_RESTART_WITHIN", "3s");
    let mut trial = Trial::of(spawn).await;
    let mut client = trial.connect().await;
    let first = pid(&mut client).await;
    for (start, problem) in [
        ("fail", "ended before it was ready (exit status: 1)"),
        ("hang", "was not ready within 3s"),
        ("die", "ended before it was ready (signal: 6"),
    ] {
        fs::write(folder.path().join("start"), start).unwrap();
        trial.signal(libc::SIGUSR2);
        trial.says(problem).await;
        assert_eq!(pid(&mut client).await, first);
        assert_eq!(pid(&mut trial.connect().await).await, first);
    }
    fs::write(folder.path().join("start"), "").unwrap();
    restart(&mut trial).await;
    let successor = Successor::answers(&mut client).await;
    assert_ne!(successor.pid, first);
    successor.stop().await;
}

#[tokio::test]
async fn a_connection_that_the_successor_takes_no_more_is_served_on_here() {
    let folder = TempDir::new().unwrap();
    let held = folder.path().join("held");
    fs::write(&held, "").unwrap();
    let mut trial = start("follows", folder.path()).await;
    let mut client = trial.connect().await;
    let first = pid(&mut client).await;
    let mut busy = trial.ask("/held").await;
    trial.says("held").await;
    trial.signal(libc::SIGUSR2);
    trial.says("restarted as PID").await;
    // It travels between two answers.
    let second = loop {
        match pid(&mut client).await {
            pid if pid != first => break pid,
            _ => {}
        }
    };
    let mut successor = Successor {
        pid: second,
        gone: false,
    };
    client
        .send("POST /upload HTTP/1.1\r\nhost: trial\r\ncontent-length: 4\r\n\r\nab")
        .await;
    successor.signal(libc::SIGTERM);
    trial.says("SIGTERM: stopping").await;

    fs::remove_file(&held).unwrap();
    assert_eq!(busy.answer().await.1, "ok");
    assert_eq!(answer(&mut busy, "/pid").await.1, first.to_string());
    client.send("cd").await;
    assert_eq!(client.answer().await.1, "got 4");
    assert_eq!(trial.exit().await.0, 0);
    let ended = tokio::task::spawn_blocking(move || successor.ended());
    assert_eq!(ended.await.unwrap(), Some(0));
}

#[tokio::test]
async fn another_signal_restarts_where_that_is_wished_and_so_does_the_program_itself() {
    adopt_orphans();
    let mut trial = Trial::of(spawn("restarts-otherwise")).await;
    let mut client = trial.connect().await;
    let first = pid(&mut client).await;
    trial.signal(libc::SIGALRM);
    assert_eq!(trial.exit().await.0, 0);
    let mut second = Successor::answers(&mut client).await;
    assert_ne!(second.pid, first);
    client
        .send("POST /restart HTTP/1.1\r\nhost: trial\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.1, "told");
    let before = second.pid;
    let ended = tokio::task::spawn_blocking(move || second.ended());
    assert_eq!(ended.await.unwrap(), Some(0));
    let third = Successor::answers(&mut client).await;
    assert_ne!(third.pid, before);
    third.stop().await;
}

#[tokio::test]
async fn a_stop_meanwhile_ends_the_successor_too() {
    let folder = TempDir::new().unwrap();
    let mut trial = start("follows", folder.path()).await;
    fs::write(folder.path().join("start"), "hang").unwrap();
    trial.signal(libc::SIGUSR2);
    let started = trial.process.wait_line("restart: PID ", LIMIT).await;
    let started = started.unwrap();
    let successor = started.split(' ').next().unwrap();
    trial.signal(libc::SIGTERM);
    let (code, told) = trial.exit().await;
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("deregistered"), "{told}");
    assert!(!Path::new("/proc").join(successor).exists());
}

#[tokio::test]
async fn a_unix_sockets_file_goes_with_it() {
    adopt_orphans();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("trial.sock");
    let mut process = spawn("")
        .env("TRIAL_ADDRESS", format!("unix:{}", path.display()))
        .start()
        .unwrap();
    process.wait_output("ready", LIMIT).await.unwrap();
    let mut before = i32::try_from(process.id()).unwrap();
    let mut client = unix::Client::to(&path).await;
    assert_eq!(client.pid().await, before);
    process.signal(libc::SIGUSR2).unwrap();
    process.wait_exit(LIMIT).await.unwrap();
    let successor = Successor {
        pid: client.pid().await,
        gone: false,
    };
    assert_ne!(successor.pid, std::mem::replace(&mut before, successor.pid));
    assert_eq!(unix::Client::to(&path).await.pid().await, successor.pid);
    successor.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn systemd_learns_who_the_service_is_and_not_that_it_stops() {
    adopt_orphans();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let notified: Spawn = spawn("").env("NOTIFY_SOCKET", &path);
    let mut trial = Trial::of(notified).await;
    let mut client = trial.connect().await;
    restart(&mut trial).await;
    let successor = Successor::answers(&mut client).await;
    let mut told = String::new();
    let mut bytes = [0; 4096];
    let of_it = format!("MAINPID={}", successor.pid);
    while !told.contains(&of_it) {
        let length = tokio::time::timeout(LIMIT, manager.recv(&mut bytes)).await;
        let length = length.unwrap().unwrap();
        told.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
    }
    assert!(told.contains("RELOADING=1\nMONOTONIC_USEC="), "{told}");
    assert!(!told.contains("STOPPING"), "{told}");
    successor.stop().await;
}

#[tokio::test]
async fn whom_a_proxy_has_announced_is_known_to_the_successor() {
    adopt_orphans();
    let mut trial = Trial::of(spawn("proxied")).await;
    let mut client = trial.connect().await;
    client
        .send("PROXY TCP4 192.0.2.7 192.0.2.8 4000 80\r\n")
        .await;
    assert_eq!(answer(&mut client, "/peer").await.1, "192.0.2.7:4000");
    restart(&mut trial).await;
    assert_eq!(answer(&mut client, "/peer").await.1, "192.0.2.7:4000");
    Successor::answers(&mut client).await.stop().await;
}

#[tokio::test]
async fn the_admin_listener_is_the_successors_while_this_process_drains() {
    adopt_orphans();
    let mut process = spawn("").env("SUNDOWN_ADMIN", ":0").start().unwrap();
    let admin = process.wait_line("admin on ", LIMIT).await.unwrap();
    let admin: SocketAddr = admin.parse().unwrap();
    let address = process.wait_line("http on ", LIMIT).await.unwrap();
    let mut client = Client::to(address.parse().unwrap()).await;
    let first = pid(&mut client).await;
    client.send(&get("/slow?ms=1000")).await;
    process.wait_output("slow began", LIMIT).await.unwrap();
    let mut kept = Client::to(admin).await;
    let told = lifecycle(&mut kept).await;
    assert!(told.contains(&format!("\"pid\":{first},")), "{told}");
    process.signal(libc::SIGUSR2).unwrap();
    process
        .wait_output("restarted as PID", LIMIT)
        .await
        .unwrap();
    // Who connected before the listener was let go is answered here, and is told nothing of a stop.
    let mut answers = Vec::new();
    while answers.len() < 20 {
        let status = lifecycle(&mut Client::to(admin).await).await;
        assert!(status.contains("\"ready\":true"), "{status}");
        match process_of(&status) {
            pid if pid == first => assert!(answers.is_empty(), "the successor has answered"),
            pid => answers.push(pid),
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    // It travels as soon as it is idle.
    while process_of(&lifecycle(&mut kept).await) == first {}
    assert!(!process.has_ended());
    client.answer().await;
    process.wait_exit(LIMIT).await.unwrap();
    Successor::answers(&mut client).await.stop().await;
}

async fn lifecycle(client: &mut Client) -> String {
    let request = "GET /lifecycle HTTP/1.1\r\nhost: localhost\r\n\r\n";
    client.send(request).await;
    client.answer().await.1
}

fn process_of(status: &str) -> i32 {
    let (_, pid) = status.split_once("\"pid\":").unwrap();
    pid.split(',').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn at_a_terminal_the_successor_serves_on_when_that_hangs_up() {
    adopt_orphans();
    let mut terminal = Terminal::open(200).unwrap();
    // It leads the session, as what a terminal was opened for does.
    let mut child = Command::new("sh")
        .args(["-c", "exec setsid --ctty \"$0\" <&2"])
        .arg(spawn_path())
        .stderr(terminal.stdio())
        .spawn()
        .unwrap();
    let said = terminal.wait("\n", 1);
    let (_, address) = said.split_once("http on ").unwrap();
    let mut client = Client::to(address.trim().parse().unwrap()).await;
    let first = pid(&mut client).await;
    assert_eq!(first, i32::try_from(child.id()).unwrap());
    let leader = Successor {
        pid: first,
        gone: true,
    };
    leader.signal(libc::SIGUSR2);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let successor = Successor::answers(&mut client).await;
    assert_ne!(successor.pid, first);
    drop(terminal);
    assert_eq!(pid(&mut client).await, successor.pid);
    successor.stop().await;
}

#[tokio::test]
async fn as_pid_1_it_is_refused_in_one_line() {
    let spawn = Spawn::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--kill-child",
        ])
        .arg(spawn_path());
    let mut trial = Trial::of(spawn).await;
    let unshare = trial.process.id();
    let children = format!("/proc/{unshare}/task/{unshare}/children");
    let children = fs::read_to_string(children).unwrap();
    let first = Successor {
        pid: children.trim().parse().unwrap(),
        gone: true,
    };
    first.signal(libc::SIGUSR2);
    trial.says("no restart as PID 1").await;
    assert_eq!(trial.ask("/pid").await.answer().await.1, "1");
    first.signal(libc::SIGTERM);
    let (code, told) = trial.exit().await;
    assert_eq!(code, 0, "{told}");
    assert!(!told.contains("restart: PID"), "{told}");
}

mod unix {
    use std::path::Path;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::trial::get;

    pub(super) struct Client(UnixStream);

    impl Client {
        pub(super) async fn to(path: &Path) -> Self {
            Self(UnixStream::connect(path).await.unwrap())
        }

        pub(super) async fn pid(&mut self) -> i32 {
            self.0.write_all(get("/pid").as_bytes()).await.unwrap();
            let mut answer = String::new();
            // The body has no line's end, and comes with its head.
            while !answer.contains("\r\n\r\n") {
                let mut bytes = [0; 512];
                let length = self.0.read(&mut bytes).await.unwrap();
                answer.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
            }
            answer.rsplit("\r\n").next().unwrap().parse().unwrap()
        }
    }
}
