//! Real children: their signals, their end, and what the kernel refuses them.
//!
//! The child is this test binary again, told by its environment which part to play.

use std::io::Read;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::time::Duration;

use sundown_verify::process::{Ended, ProcessError, Spawn, free_port};
use sundown_verify::{Process, Refuse};
use tokio::time::{sleep, timeout};

const LIMIT: Duration = Duration::from_secs(20);
const PART: &str = "SUNDOWN_TEST_PART";

/// Plays the part the environment asks for; as an ordinary test it does nothing.
#[test]
fn the_child_plays_its_part() {
    match std::env::var(PART).as_deref() {
        Ok("listen") => listen(),
        Ok("signals") => print_signals(),
        Ok("options") => print_refused_options(),
        Ok("line") => print_line_in_pieces(),
        Ok("exit") => std::process::exit(7),
        Ok("starter") => start_and_be_killed(),
        _ => {}
    }
}

fn part(name: &str) -> Spawn {
    Spawn::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_child_plays_its_part", "--nocapture"])
        .env(PART, name)
}

fn listen() {
    let listener = TcpListener::bind(std::env::var("ADDR").unwrap()).unwrap();
    while let Ok((mut stream, _)) = listener.accept() {
        let _ = stream.read(&mut [0]);
    }
}

fn print_signals() {
    // The mask is a thread's own, and that of the main thread may be busy with starting this one.
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    for line in status.lines().filter(|line| line.starts_with("Sig")) {
        println!("{line}");
    }
}

fn print_refused_options() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for (name, option) in [("deaf", 62), ("fence", libc::SO_ATTACH_FILTER)] {
        // An empty value: the kernel, if it is asked at all, calls it invalid.
        // SAFETY: the length is zero, so the pointer is not read.
        let result = unsafe {
            libc::setsockopt(
                listener.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                std::ptr::null(),
                0,
            )
        };
        assert_eq!(result, -1);
        println!("{name} refused: {}", is_refused(true));
    }
    listener.set_nonblocking(true).unwrap();
    // Neither opens or reads anything: there is no such process, and nothing is to be read.
    // SAFETY: the calls take numbers, and pointers to nothing, of length zero.
    let results = unsafe {
        let none = std::ptr::null::<libc::iovec>();
        let opened = libc::syscall(libc::SYS_pidfd_getfd, -1, 0, 0);
        let refused = is_refused(opened == -1);
        let read = libc::process_vm_readv(0, none, 0, none, 0, 0);
        [("descriptors", refused), ("memory", is_refused(read == -1))]
    };
    for (name, refused) in results {
        println!("{name} refused: {refused}");
    }
}

fn is_refused(failed: bool) -> bool {
    failed && std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// Writes the end of the line once it is told to: by a connection.
fn print_line_in_pieces() {
    let gate = TcpListener::bind(std::env::var("ADDR").unwrap()).unwrap();
    eprint!("first\nready, http on 127.0.");
    gate.accept().unwrap();
    eprint!("0.1:80\nlast\n");
}

/// Starts a service, tells its number, and does not end by itself.
fn start_and_be_killed() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let service = leaving("sleep 600").start().unwrap();
        println!("service {}", service.id());
        std::future::pending::<()>().await
    });
}

/// A service that starts something in a session of its own, and then does this.
fn leaving(rest: &str) -> Spawn {
    let script = format!("setsid sleep 600 & echo left $!; {rest}");
    Spawn::new("sh").args(["-c", &script]).whole()
}

/// Waits until a process is dead and reaped.
async fn until_gone(pid: u32) {
    let gone = async {
        while std::path::Path::new(&format!("/proc/{pid}")).exists() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LIMIT, gone).await.expect("it is gone in the end");
}

async fn output_of(spawn: Spawn) -> String {
    let mut process = spawn.start().unwrap();
    process.wait_exit(LIMIT).await.unwrap();
    process.stdout()
}

async fn listening() -> Process {
    let addr = free_port().unwrap();
    let mut process = part("listen")
        .env("ADDR", addr.to_string())
        .start()
        .unwrap();
    process.wait_listening(addr, LIMIT).await.unwrap();
    process
}

#[tokio::test]
async fn a_child_is_found_listening_and_its_death_by_signal_is_told() {
    let mut process = listening().await;
    process.signal(libc::SIGTERM).unwrap();

    let exit = process.wait_exit(LIMIT).await.unwrap();
    assert_eq!(exit.ended, Ended::Signal(libc::SIGTERM));
    assert!(exit.after < LIMIT);
    assert!(
        process.signal(libc::SIGTERM).is_err(),
        "a reaped child is never signalled"
    );
}

#[tokio::test]
async fn an_exit_code_is_told() {
    let mut process = part("exit").start().unwrap();
    assert_eq!(
        process.wait_exit(LIMIT).await.unwrap().ended,
        Ended::Code(7)
    );
    assert_eq!(
        process.wait_exit(LIMIT).await.unwrap().ended,
        Ended::Code(7)
    );
}

#[tokio::test]
async fn a_child_that_ends_is_not_waited_for_to_listen() {
    let mut process = part("exit").start().unwrap();
    let error = process
        .wait_listening(free_port().unwrap(), LIMIT)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ProcessError::EndedEarly {
                ended: Ended::Code(7),
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_child_that_does_not_exit_in_time_runs_on() {
    let mut process = listening().await;
    let error = process
        .wait_exit(Duration::from_millis(10))
        .await
        .unwrap_err();
    assert!(matches!(error, ProcessError::TooSlow { .. }), "{error}");
    process.signal(libc::SIGKILL).unwrap();
    assert_eq!(
        process.wait_exit(LIMIT).await.unwrap().ended,
        Ended::Signal(libc::SIGKILL)
    );
}

#[tokio::test]
async fn a_dropped_child_is_gone() {
    let process = listening().await;
    let pid = process.id();
    drop(process);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn a_child_starts_with_no_signal_blocked_or_ignored() {
    let output = output_of(part("signals")).await;
    assert!(output.contains("SigBlk:\t0000000000000000"), "{output}");
    // The Rust runtime itself ignores SIGPIPE before `main`.
    assert!(output.contains("SigIgn:\t0000000000001000"), "{output}");
}

#[tokio::test]
async fn a_child_starts_with_the_signals_blocked_that_were_asked_for() {
    let output = output_of(part("signals").blocked_signals([libc::SIGTERM])).await;
    assert!(output.contains("SigBlk:\t0000000000004000"), "{output}");
}

#[tokio::test]
async fn the_kernel_refuses_what_it_was_told_to_refuse() {
    let table: [(Refuse, &[&str]); 5] = [
        (Refuse::Nothing, &[]),
        (Refuse::Deaf, &["deaf"]),
        (Refuse::DeafAndFence, &["deaf", "fence"]),
        (Refuse::Descriptors, &["descriptors"]),
        (Refuse::DescriptorsAndMemory, &["descriptors", "memory"]),
    ];
    for (refuse, refused) in table {
        let output = output_of(part("options").refuse(refuse)).await;
        for what in ["deaf", "fence", "descriptors", "memory"] {
            let line = format!("{what} refused: {}", refused.contains(&what));
            assert!(output.contains(&line), "{refuse:?}: {output}");
        }
    }
}

#[tokio::test]
async fn a_text_in_the_output_is_waited_for() {
    let mut process = part("signals").start().unwrap();
    process.wait_output("SigCgt", LIMIT).await.unwrap();
    assert!(process.wait_output("no such text", LIMIT).await.is_err());
}

#[tokio::test]
async fn a_line_that_comes_in_pieces_is_waited_for_to_its_end() {
    let addr = free_port().unwrap();
    let part = part("line").env("ADDR", addr.to_string());
    let mut process = part.start().unwrap();
    process.wait_output("http on 127.0.", LIMIT).await.unwrap();
    {
        let line = process.wait_line("http on ", LIMIT);
        let mut line = std::pin::pin!(line);
        tokio::select! {
            biased;
            early = &mut line => panic!("half a line: {early:?}"),
            () = std::future::ready(()) => {}
        }

        let _told = tokio::net::TcpStream::connect(addr).await.unwrap();
        assert_eq!(line.await.unwrap(), "127.0.0.1:80");
    }

    let error = process.wait_line("no such line", LIMIT).await.unwrap_err();
    assert!(matches!(error, ProcessError::TooSlow { .. }), "{error}");
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_named() {
    let error = Spawn::new("/no/such/program").start().unwrap_err();
    assert_eq!(error.to_string(), "could not start /no/such/program");
}

#[tokio::test]
async fn what_has_left_the_session_is_found_after_the_end_and_gone_with_the_process() {
    // Two at a time: each has its own.
    let (mut one, mut other) = (
        leaving("exit 3").start().unwrap(),
        leaving("exit 4").start().unwrap(),
    );
    let mut pids = Vec::new();
    for (process, code) in [(&mut one, 3), (&mut other, 4)] {
        let exit = process.wait_exit(LIMIT).await.unwrap();
        assert_eq!(exit.ended, Ended::Code(code));
        let told = process.stdout();
        let pid = told.trim().strip_prefix("left ").unwrap().parse().unwrap();
        let left = process.descendants();
        let found: Vec<u32> = left.iter().map(|left| left.pid).collect();
        assert_eq!(found, [pid], "{left:?}");
        assert!(
            !process.group_members().contains(&pid),
            "it has left the group"
        );
        pids.push(pid);
    }
    // The shell's child may not have become another program when the shell has ended.
    let told = async {
        while one.descendants()[0].command != "sleep 600" {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LIMIT, told)
        .await
        .expect("its command line is told");

    drop(one);
    let gone = |pid: u32| !std::path::Path::new(&format!("/proc/{pid}")).exists();
    assert!(gone(pids[0]) && !gone(pids[1]));
    drop(other);
    assert!(gone(pids[1]));
}

#[tokio::test]
async fn a_process_that_is_kept_whole_is_like_any_other() {
    let mut process = part("signals").whole().start().unwrap();
    let exit = process.wait_exit(LIMIT).await.unwrap();
    assert_eq!(exit.ended, Ended::Code(0));
    let signals = |told: &str| -> Vec<String> {
        let sets = ["SigBlk:", "SigIgn:", "SigCgt:"];
        let lines = told.lines();
        let lines = lines.filter(|line| sets.iter().any(|set| line.starts_with(set)));
        lines.map(str::to_owned).collect()
    };
    let bare = signals(&output_of(part("signals")).await);
    assert!(!bare.is_empty());
    assert_eq!(
        signals(&process.stdout()),
        bare,
        "what is blocked, ignored and caught"
    );

    let mut process = Spawn::new("sleep").arg("600").whole().start().unwrap();
    assert_eq!(
        process.group_members(),
        [process.id()],
        "it leads a group of its own"
    );
    assert!(process.descendants().is_empty());
    process.signal(libc::SIGUSR1).unwrap();
    let exit = process.wait_exit(LIMIT).await.unwrap();
    assert_eq!(exit.ended, Ended::Signal(libc::SIGUSR1));
    assert!(process.signal(libc::SIGTERM).is_err());

    let absent = Spawn::new("/no/such/server").whole().start().unwrap_err();
    assert!(matches!(absent, ProcessError::Spawn { .. }), "{absent:?}");
}

#[tokio::test]
async fn a_kill_takes_all_along_that_was_started() {
    let mut process = leaving("wait").start().unwrap();
    let left = process.wait_line("left ", LIMIT).await.unwrap();
    assert!(process.kill());
    let exit = process.wait_exit(LIMIT).await.unwrap();
    assert_eq!(exit.ended, Ended::Signal(libc::SIGKILL));
    assert!(process.descendants().is_empty());
    assert!(!std::path::Path::new(&format!("/proc/{left}")).exists());
    assert!(!process.kill(), "it was gone");
}

#[tokio::test]
async fn a_service_does_not_outlive_us_when_we_are_killed() {
    let mut starter = part("starter").start().unwrap();
    let service = starter.wait_line("service ", LIMIT).await.unwrap();
    starter.signal(libc::SIGKILL).unwrap();
    starter.wait_exit(LIMIT).await.unwrap();
    until_gone(service.parse().unwrap()).await;
}

#[tokio::test]
async fn more_children_than_one_look_lists_are_all_gone_in_the_end() {
    const CHILDREN: usize = 1000;
    let script = format!(
        "i=0; while [ $i -lt {CHILDREN} ]; do sleep 600 & i=$((i+1)); done; echo begun; wait"
    );
    let mut process = Spawn::new("sh")
        .args(["-c", &script])
        .whole()
        .start()
        .unwrap();
    process.wait_output("begun", LIMIT).await.unwrap();
    let pids: Vec<u32> = process.descendants().iter().map(|left| left.pid).collect();
    assert!(pids.len() >= CHILDREN, "{}", pids.len());
    drop(process);
    let left = pids
        .iter()
        .filter(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(left.count(), 0);
}
