//! `sundown run` on real processes: how it stops them, what it says, and what it leaves behind.

mod guarded;

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::thread;

use assert_cmd::cargo::cargo_bin;
use sundown_testkit::bin_path;
use sundown_verify::process::{Ended, Refuse, Spawn, free_port};
use tempfile::TempDir;

use self::guarded::{
    Guarded, LIMIT, Load, ask, guard, listens, pid_of, planted, rest, run, run_dir, signal, visit,
};

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

/// Within one tick of the kernel's clock: its sequence numbers alone tell it from rest.
#[tokio::test]
async fn a_request_right_behind_an_answer_is_finished_though_it_takes_longer_than_quiet() {
    // SAFETY: geteuid(2) takes nothing, and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: an ordinary user may load no BPF");
        return;
    }
    let mut guarded = Guarded::planted(&["--quiet", "50ms"], "impatient").await;
    let mut clients: Vec<_> = (0..8).map(|_| guarded.ask("/fast")).collect();
    for client in &mut clients {
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\nok") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            seen.extend(byte);
        }
        write!(client, "GET /slow HTTP/1.1\r\nhost: guarded\r\n\r\n").unwrap();
    }
    guarded.guard.signal(libc::SIGTERM).unwrap();
    for client in clients {
        let seen = rest(client);
        assert!(seen.ends_with("ok"), "{seen}");
    }
    let (ended, said) = guarded.exit().await;
    assert_eq!(ended, Ended::Code(0), "{said}");
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

/// Stops a server that leaves its queue unserved, while it is frozen and clients wait there.
async fn whoever_waits_is_served(refuse: Refuse, told: &str, newcomers: Newcomers) {
    let address = free_port().unwrap();
    let mut guard = guard(&["--quiet", "100ms"])
        .args([&planted(), &address.port().to_string(), "backlog"])
        .refuse(refuse)
        .start()
        .unwrap();
    let pid = pid_of(&mut guard, 1).await;
    listens(&mut guard, 1).await;
    visit(address).unwrap();
    signal(pid, libc::SIGSTOP);
    let ask = |_| {
        let mut client = TcpStream::connect(address).unwrap();
        let request = b"GET /fast HTTP/1.1\r\nhost: guarded\r\nconnection: close\r\n\r\n";
        client.write_all(request).unwrap();
        client
    };
    let clients: Vec<_> = (0..64).map(ask).collect();
    guard.signal(libc::SIGTERM).unwrap();
    guard.wait_output(told, LIMIT).await.unwrap();
    let newcomer = (newcomers == Newcomers::AreKeptOut)
        .then(|| thread::spawn(move || TcpStream::connect(address)));
    signal(pid, libc::SIGCONT);
    for client in clients {
        let seen = rest(client);
        assert!(seen.ends_with("ok"), "{seen:?}");
    }
    let exit = guard.wait_exit(LIMIT).await.unwrap();
    assert_eq!(exit.ended, Ended::Code(0), "{}", guard.stderr());
    if let Some(newcomer) = newcomer {
        let refused = newcomer.join().unwrap().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}

#[derive(PartialEq)]
enum Newcomers {
    AreKeptOut,
    AreLetIn,
}

#[tokio::test]
async fn whoever_waits_is_served_behind_a_fence() {
    let fence = "newcomers cannot be refused yet (Operation not permitted";
    let none = "nor their attempts be dropped (Operation not permitted";
    match sundown_testkit::may_attach_filters() {
        true => whoever_waits_is_served(Refuse::Deaf, fence, Newcomers::AreKeptOut).await,
        false => whoever_waits_is_served(Refuse::Deaf, none, Newcomers::AreLetIn).await,
    }
}

#[tokio::test]
async fn whoever_waits_is_served_where_nobody_can_be_kept_out() {
    let none = "nor their attempts be dropped (Operation not permitted";
    whoever_waits_is_served(Refuse::DeafAndFence, none, Newcomers::AreLetIn).await;
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
    let named = format!("connection {} from {peer}", guarded.address);
    assert!(said.contains(&named), "{said}");
    assert!(said.contains("told to stop with 1 under way"), "{said}");
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
    let slow = guarded.ask("/slow");
    guarded.guard.signal(libc::SIGTERM).unwrap();
    guarded
        .guard
        .wait_output("again to hurry", LIMIT)
        .await
        .unwrap();
    guarded.guard.signal(libc::SIGTERM).unwrap();
    // The application is told at once, and ends as it does.
    let seen = rest(slow);
    assert!(seen.ends_with("ok"), "{seen}");
    let (ended, said) = guarded.exit().await;
    // What it ends in its last instant counts as cut off.
    assert!(matches!(ended, Ended::Code(0 | 4)), "{said}");
    assert!(said.contains("told to stop with 1 under way"), "{said}");
    assert!(!guarded.is_there());
}

#[tokio::test]
async fn nothing_outlives_a_guard_that_is_killed_while_it_stops() {
    let options = [
        "--name",
        "stops",
        "--quiet",
        "1h",
        "--drain",
        "2h",
        "--on-guard-death",
        "keep",
    ];
    let mut guarded = Guarded::planted(&options, "stays").await;
    let mut busy = guarded.ask("/stream");
    busy.read_exact(&mut [0; 16]).unwrap();
    guarded.guard.signal(libc::SIGTERM).unwrap();
    while !ask(&["status", "--name", "stops"]).1.contains("stopping") {}
    guarded.guard.signal(libc::SIGKILL).unwrap();
    guarded.exit().await;
    guarded.gone().await;
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
    guarded.gone().await;

    let mut guarded = Guarded::planted(&["--on-guard-death", "keep"], "none").await;
    guarded.guard.signal(libc::SIGKILL).unwrap();
    guarded.exit().await;
    let client = guarded.ask("/fast");
    assert!(guarded.is_there());
    // SAFETY: it is looked at in the line before, and ends by nobody else.
    unsafe { libc::kill(guarded.pid, libc::SIGTERM) };
    rest(client);
    guarded.gone().await;
}

#[tokio::test]
async fn restarts_lose_nothing_that_connects() {
    let mut guarded = Guarded::planted(&["--quiet", "100ms"], "none").await;
    let slow = guarded.ask("/slow");
    let load = Load::on(guarded.address);
    for number in 1..=5 {
        guarded.guard.signal(libc::SIGHUP).unwrap();
        let over = format!("generation {number} has ended after");
        let said = guarded.guard.wait_line(&over, LIMIT).await.unwrap();
        assert!(said.ends_with("nothing was cut off"), "{said}");
    }
    let (answered, lost) = load.end();
    assert!(answered > 100, "{answered}");
    assert_eq!(lost, []);
    assert!(rest(slow).ends_with("ok"));
    guarded.guard.signal(libc::SIGTERM).unwrap();
    let (ended, said) = guarded.exit().await;
    assert_eq!(ended, Ended::Code(0), "{said}");
    assert!(!guarded.is_there());
}

#[tokio::test]
async fn a_next_generation_that_is_of_no_use_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let begun = folder.path().join("begun");
    let (planted, address) = (bin_path("examples/planted"), free_port().unwrap());
    let (begun, planted) = (begun.display(), planted.display());
    for (then, problem) in [
        ("exit 3", "it ended before it was ready (3)"),
        (
            "exec sleep 60",
            "it did not listen where it should within 1s",
        ),
    ] {
        let _ = fs::remove_file(begun.to_string());
        let script = format!(
            "if [ -e {begun} ]; then {then}; fi; touch {begun}; exec {planted} {}",
            address.port()
        );
        let mut guard = guard(&["--quiet", "100ms", "--ready-within", "1s"])
            .args(["sh", "-c", &script])
            .start()
            .unwrap();
        guard
            .wait_output("generation 1 listens on", LIMIT)
            .await
            .unwrap();
        guard.signal(libc::SIGHUP).unwrap();
        guard.wait_output(problem, LIMIT).await.unwrap();
        guard
            .wait_output("generation 1 serves on", LIMIT)
            .await
            .unwrap();
        visit(address).unwrap();
        guard.signal(libc::SIGTERM).unwrap();
        let exit = guard.wait_exit(LIMIT).await.unwrap();
        assert_eq!(exit.ended, Ended::Code(0), "{}", guard.stderr());
    }
}

#[tokio::test]
async fn after_a_crash_the_next_one_serves_who_waits() {
    let mut guarded = Guarded::planted(&["--quiet", "100ms"], "none").await;
    let load = Load::on(guarded.address);
    for number in 1..=5 {
        // SAFETY: the guard has said that this process is its, and reaps it only when it has ended.
        unsafe { libc::kill(guarded.pid, libc::SIGKILL) };
        let next = format!("generation {} is PID ", number + 1);
        let pid = guarded.guard.wait_line(&next, LIMIT).await.unwrap();
        guarded.pid = pid.parse().unwrap();
        let listens = format!("generation {} listens on", number + 1);
        guarded.guard.wait_output(&listens, LIMIT).await.unwrap();
        visit(guarded.address).unwrap();
    }
    let (answered, lost) = load.end();
    assert!(answered > 20, "{answered}");
    assert!(!lost.contains(&ErrorKind::ConnectionRefused), "{lost:?}");
    // Those that were in flight: one a client and crash at most.
    assert!(lost.len() <= 20, "{lost:?}");
    guarded.guard.signal(libc::SIGTERM).unwrap();
    let (ended, said) = guarded.exit().await;
    assert_eq!(ended, Ended::Code(0), "{said}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_the_commands_error_as_ever() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let planted = bin_path("examples/planted");
    let (ended, said) = run(&[], &[planted.to_str().unwrap(), &port]).await;
    assert_eq!(ended, Ended::Code(101), "{said}");
    assert!(said.contains("Address already in use"), "{said}");
}

#[tokio::test]
async fn an_application_may_close_its_listener_and_open_it_again() {
    let mut guarded = Guarded::planted(&["--quiet", "100ms"], "reload").await;
    // SAFETY: the guard has said that this process is its.
    unsafe { libc::kill(guarded.pid, libc::SIGHUP) };
    let again = "is opened again: its queue was kept";
    let load = Load::on(guarded.address);
    guarded.guard.wait_output(again, LIMIT).await.unwrap();
    visit(guarded.address).unwrap();
    assert_eq!(load.end().1, []);
    guarded.guard.signal(libc::SIGTERM).unwrap();
    let (ended, said) = guarded.exit().await;
    assert_eq!(ended, Ended::Code(0), "{said}");
}

#[tokio::test]
async fn a_guard_is_asked_restarted_and_stopped_by_its_name() {
    let options = ["--name", "asked", "--quiet", "100ms"];
    let mut guarded = Guarded::planted(&options, "none").await;
    let (code, told, _) = ask(&["status", "--name", "asked", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&told).unwrap();
    let first = &status["status"]["generations"][0];
    assert_eq!((code, &first["state"]), (0, &"current".into()), "{told}");
    assert_eq!(first["pid"], guarded.pid);
    assert_eq!(first["listens"][0], guarded.address.to_string());

    let mut stream = guarded.ask("/stream");
    stream.read_exact(&mut [0; 16]).unwrap();
    let peer = stream.local_addr().unwrap();
    let (code, told, _) = ask(&["restart", "--wait", "--name", "asked"]);
    assert_eq!((code, &*told), (0, "generation 2 takes what connects\n"));
    // It goes on until its server hears of a stop, which is not before it rests.
    let held = format!("connection {} from {peer}", guarded.address);
    loop {
        let (_, told, _) = ask(&["status", "--name", "asked"]);
        assert!(told.contains("generation 2"), "{told}");
        if told.contains(&held) {
            break;
        }
    }
    drop(stream);
    guarded
        .guard
        .wait_output("generation 1 has ended after", LIMIT)
        .await
        .unwrap();

    let (code, told, _) = ask(&["stop", "--name", "asked"]);
    assert_eq!((code, &*told), (0, "stopping\n"));
    let (ended, said) = guarded.exit().await;
    assert_eq!(ended, Ended::Code(0), "{said}");
    let (code, _, said) = ask(&["status", "--name", "asked"]);
    assert_eq!(code, 2);
    assert!(
        said.starts_with("error: no guard named asked runs"),
        "{said}"
    );
    assert!(!run_dir().join("asked.sock").exists());
}

#[tokio::test]
async fn a_restart_that_fails_is_told_to_whoever_waits() {
    let folder = TempDir::new().unwrap();
    let begun = folder.path().join("begun");
    let script = format!(
        "if [ -e {begun} ]; then exit 3; fi; touch {begun}; exec {} {}",
        bin_path("examples/planted").display(),
        free_port().unwrap().port(),
        begun = begun.display(),
    );
    let mut guard = guard(&["--name", "failing", "--quiet", "100ms"])
        .args(["sh", "-c", &script])
        .start()
        .unwrap();
    guard
        .wait_output("generation 1 listens on", LIMIT)
        .await
        .unwrap();
    let (code, _, said) = ask(&["restart", "--wait", "--name", "failing"]);
    assert_eq!(
        (code, &*said),
        (1, "error: it ended before it was ready (3)\n")
    );
    let (_, told, _) = ask(&["status", "--name", "failing"]);
    assert!(told.contains("last restart: restart failed"), "{told}");
    guard.signal(libc::SIGTERM).unwrap();
    guard.wait_exit(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_name_is_one_guards_and_free_after_it() {
    let mut first = Guarded::planted(&["--name", "only"], "none").await;
    let (ended, said) = run(&["--name", "only"], &["sleep", "60"]).await;
    assert_eq!(ended, Ended::Code(2), "{said}");
    assert_eq!(
        said,
        "error: a guard named only runs already: give this one another --name\n"
    );
    first.guard.signal(libc::SIGKILL).unwrap();
    first.exit().await;
    let (ended, said) = run(&["--name", "only"], &["sh", "-c", "exit 0"]).await;
    assert_eq!(ended, Ended::Code(0), "{said}");
    let (ended, said) = run(&["--name", "No/Name"], &["true"]).await;
    assert_eq!(ended, Ended::Code(2), "{said}");
}

#[tokio::test]
async fn workers_whose_master_is_killed_serve_on_until_the_next_one_does() {
    let address = free_port().unwrap();
    // A shell stands for a master, which is killed alone.
    let script = format!(
        "{} {} & wait",
        bin_path("examples/planted").display(),
        address.port()
    );
    let mut guard = guard(&["--quiet", "100ms"])
        .args(["sh", "-c", &script])
        .start()
        .unwrap();
    let pid = guard
        .wait_line("generation 1 is PID ", LIMIT)
        .await
        .unwrap();
    guard
        .wait_output("generation 1 listens on", LIMIT)
        .await
        .unwrap();
    let load = Load::on(address);
    // SAFETY: the guard has said that this process is its.
    unsafe { libc::kill(pid.parse().unwrap(), libc::SIGKILL) };
    let over = "generation 1 has ended after";
    let said = guard.wait_line(over, LIMIT).await.unwrap();
    assert!(said.ends_with("nothing was cut off"), "{said}");
    assert_eq!(load.end().1, []);
    guard.signal(libc::SIGTERM).unwrap();
    let exit = guard.wait_exit(LIMIT).await.unwrap();
    assert_eq!(exit.ended, Ended::Code(0), "{}", guard.stderr());
}

#[tokio::test]
async fn whether_it_is_started_again_and_by_what_it_is_stopped_is_a_setting() {
    for (restart, signal, again) in [
        ("no", libc::SIGKILL, false),
        ("on-failure", libc::SIGTERM, false),
        ("always", libc::SIGTERM, true),
    ] {
        let options = [
            "--quiet",
            "100ms",
            "--stop-signal",
            "INT",
            "--restart",
            restart,
        ];
        // It ends with 0 when it is told to.
        let mut guarded = Guarded::planted(&options, "none").await;
        // SAFETY: the guard has said that this process is its.
        unsafe { libc::kill(guarded.pid, signal) };
        if again {
            let next = guarded.guard.wait_output("generation 2 listens on", LIMIT);
            next.await.unwrap();
            visit(guarded.address).unwrap();
            guarded.guard.signal(libc::SIGTERM).unwrap();
        }
        let (ended, said) = guarded.exit().await;
        let code = if restart == "no" { 137 } else { 0 };
        assert_eq!(ended, Ended::Code(code), "{restart}: {said}");
        assert_eq!(said.contains("generation 2"), again, "{restart}: {said}");
    }

    // It hears nothing but SIGTERM and SIGHUP.
    for number in [libc::SIGINT, libc::SIGQUIT] {
        let options = ["--quiet", "100ms", "--stop-signal", "TERM"];
        let mut guarded = Guarded::planted(&options, "interrupt").await;
        // SAFETY: the call takes a number.
        let group = unsafe { libc::getpgid(guarded.pid) };
        assert_eq!(group, guarded.pid, "a group of its own");
        guarded.guard.signal(number).unwrap();
        let (ended, said) = guarded.exit().await;
        assert_eq!(ended, Ended::Code(0), "{said}");
    }
}

#[tokio::test]
async fn what_holds_a_stop_up_is_told_while_it_does() {
    let mut guarded = Guarded::planted(&["--quiet", "100ms"], "none").await;
    let client = guarded.ask("/endless");
    let peer = client.local_addr().unwrap();
    guarded.guard.signal(libc::SIGTERM).unwrap();
    let held = format!(
        "generation 1 waits for connection {} from {peer}",
        guarded.address
    );
    guarded.guard.wait_output(&held, LIMIT).await.unwrap();
    guarded.guard.signal(libc::SIGTERM).unwrap();
    let (ended, said) = guarded.exit().await;
    assert_eq!(ended, Ended::Code(4), "{said}");
}

/// What a process's status says of its signals: which are blocked, ignored, caught.
fn signals_in(text: &str) -> Vec<&str> {
    let lines = text.lines();
    lines
        .filter(|line| line.starts_with("SigBlk") || line.starts_with("SigIgn"))
        .collect()
}

#[tokio::test]
async fn it_is_started_with_the_signals_that_it_would_have_without_a_guard() {
    let status = "/proc/self/status";
    let mut texts = Vec::new();
    for command in [
        Spawn::new("cat").arg(status),
        guard(&[]).args(["cat", status]),
    ] {
        let mut process = command.blocked_signals([libc::SIGUSR2]).start().unwrap();
        process.wait_exit(LIMIT).await.unwrap();
        texts.push(process.stdout());
    }
    let [alone, guarded] = &texts[..] else {
        unreachable!()
    };
    assert_eq!(signals_in(guarded), signals_in(alone));
    assert_eq!(signals_in(alone).len(), 2, "{alone}");
}

#[tokio::test]
async fn what_dies_while_it_finishes_is_told_of() {
    let mut guarded = Guarded::planted(&["--quiet", "100ms"], "none").await;
    let client = guarded.ask("/endless");
    let peer = client.local_addr().unwrap();
    guarded.guard.signal(libc::SIGTERM).unwrap();
    let waits = "generation 1 waits for connection";
    guarded.guard.wait_output(waits, LIMIT).await.unwrap();
    signal(guarded.pid, libc::SIGKILL);
    let (ended, said) = guarded.exit().await;
    assert_eq!(ended, Ended::Code(4), "{said}");
    let cut = format!("1 cut off: connection {} from {peer}", guarded.address);
    assert!(said.contains(&cut), "{said}");
}

#[tokio::test]
async fn a_daemon_that_is_killed_is_started_again() {
    let address = free_port().unwrap();
    let script = format!("{} {} & exit 0", planted(), address.port());
    let guard = guard(&["--quiet", "100ms"]).args(["sh", "-c", &script]);
    let mut guard = guard.start().unwrap();
    listens(&mut guard, 1).await;
    let now = " now, which the command has left";
    guard.wait_output(now, LIMIT).await.unwrap();
    let said = guard.stderr();
    let (said, _) = said.split_once(now).unwrap();
    let (_, daemon) = said.rsplit_once("is PID ").unwrap();
    let daemon = daemon.parse().unwrap();
    signal(daemon, libc::SIGKILL);
    // It waits in the queue until the next generation serves.
    visit(address).unwrap();
    guard
        .wait_output("generation 2 is PID", LIMIT)
        .await
        .unwrap();
    guard.signal(libc::SIGTERM).unwrap();
    let exit = guard.wait_exit(LIMIT).await.unwrap();
    assert_eq!(exit.ended, Ended::Code(0), "{}", guard.stderr());
}

/// As where a supervisor sends SIGTERM to every process of a service (systemd's KillMode=control-group).
#[tokio::test]
async fn a_keeper_leaves_signals_to_the_guard() {
    let mut guarded = Guarded::planted(&["--quiet", "100ms"], "none").await;
    let stat = fs::read_to_string(format!("/proc/{}/stat", guarded.pid)).unwrap();
    // The name before it may have parentheses, too.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let keeper = fields.split(' ').nth(1).unwrap().parse().unwrap();
    for number in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
        signal(keeper, number);
    }
    guarded.guard.signal(libc::SIGHUP).unwrap();
    let over = "generation 1 has ended after";
    guarded.guard.wait_line(over, LIMIT).await.unwrap();
    visit(guarded.address).unwrap();
    guarded.guard.signal(libc::SIGTERM).unwrap();
    let (ended, said) = guarded.exit().await;
    assert_eq!(ended, Ended::Code(0), "{said}");
    assert!(!said.contains("has ended ("), "{said}");
}

/// As in a container, whose first process hears no signal that it has no handler for.
#[tokio::test]
async fn it_stops_in_order_as_the_first_process_of_a_namespace() {
    // SAFETY: geteuid(2) takes nothing, and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: an ordinary user may make no namespace of processes");
        return;
    }
    let address = free_port().unwrap();
    // A shell of which the service is a child, and that leaves an orphan behind.
    let script = format!(
        "(sleep 0.1 & exit 0); {} {} & wait",
        planted(),
        address.port()
    );
    let namespace = Spawn::new("unshare").args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    let first = namespace.arg(cargo_bin!("sundown"));
    let options = ["run", "--name", "first", "--quiet", "100ms", "--"];
    let first = first.env("SUNDOWN_RUN_DIR", run_dir()).args(options);
    let mut unshare = first.args(["sh", "-c", &script]).start().unwrap();
    listens(&mut unshare, 1).await;
    let mut client = TcpStream::connect(address).unwrap();
    write!(client, "GET /slow HTTP/1.1\r\nhost: guarded\r\n\r\n").unwrap();
    let children = format!("/proc/{0}/task/{0}/children", unshare.id());
    let guard = fs::read_to_string(children).unwrap();
    signal(guard.trim().parse().unwrap(), libc::SIGTERM);
    let seen = rest(client);
    assert!(seen.ends_with("ok"), "{seen}");
    let exit = unshare.wait_exit(LIMIT).await.unwrap();
    assert_eq!(exit.ended, Ended::Code(0), "{}", unshare.stderr());
}
