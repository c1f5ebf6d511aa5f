//! `sundown run` where something is wrong: one clear line says what, the exit code fits, and nothing is left.
//!
//! Each guard has a parent that adopts whatever it leaves, so that nothing can hide.

mod guarded;

use std::ffi::CString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use assert_cmd::cargo::cargo_bin;
use sundown_verify::Process;
use sundown_verify::process::{Ended, ProcessError, Refuse, Spawn, free_port};
use tempfile::TempDir;

use self::guarded::{
    LIMIT, end_of, listens, nothing_is_left, pid_of, pidfd, planted, signal, visit,
};

/// Nobody's user and group.
const NOBODY: u32 = 65534;

/// Where a test has its files and its guards their sockets; open to every user.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let place = Self(folder);
        fs::create_dir(place.path("guards")).unwrap();
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(place.path("guards"), private).unwrap();
        if is_root() {
            for folder in [place.0.path(), Path::new(&place.path("guards"))] {
                chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        place
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Writes a script that can be executed.
    fn script(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A guard as whoever runs this test.
    fn guard(&self, options: &[&str]) -> Spawn {
        let folder = match is_root() {
            true => "own",
            false => "guards",
        };
        self.start(Spawn::new(cargo_bin!("sundown")), folder, options)
    }

    /// A guard as a user without any capability; if this test runs as one, as that.
    fn ordinary_guard(&self, options: &[&str]) -> Spawn {
        if !is_root() {
            return self.guard(options);
        }
        let [user, group] = ["--reuid", "--regid"].map(|option| format!("{option}={NOBODY}"));
        let setpriv = Spawn::new("setpriv")
            .args([&user, &group, "--clear-groups", "--"])
            .arg(cargo_bin!("sundown"));
        self.start(setpriv, "guards", options)
    }

    fn start(&self, sundown: Spawn, folder: &str, options: &[&str]) -> Spawn {
        sundown
            .env("SUNDOWN_RUN_DIR", self.path(folder))
            .arg("run")
            .args(options)
            .arg("--")
            .whole()
    }
}

fn is_root() -> bool {
    // SAFETY: it has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

/// Waits for the end of a guard, after which nothing may be left but a keeper that ends.
async fn end(guard: &mut Process) -> (Ended, String) {
    let exit = guard.wait_exit(LIMIT).await.unwrap();
    let said = guard.stderr();
    let mut left = guard.descendants();
    // One that is about to end has no command line any more, but a name.
    left.retain(|who| who.command != "exe" && !who.command.contains("__keeper"));
    assert_eq!(left, [], "{said}");
    nothing_is_left(guard).await;
    (exit.ended, said)
}

async fn stop(mut guard: Process) -> (Ended, String) {
    guard.signal(libc::SIGTERM).unwrap();
    end(&mut guard).await
}

/// The lines that contain a text.
fn lines<'a>(said: &'a str, text: &str) -> Vec<&'a str> {
    said.lines().filter(|line| line.contains(text)).collect()
}

#[tokio::test]
async fn a_second_guard_on_a_port_changes_nothing_for_the_first() {
    let (place, address) = (Place::new(), free_port().unwrap());
    let port = address.port().to_string();
    let first = place.guard(&["--name", "first", "--quiet", "100ms"]);
    let mut first = first.args([planted(), port.clone()]).start().unwrap();
    listens(&mut first, 1).await;
    let second = place.guard(&["--name", "second"]);
    let mut second = second.args([planted(), port]).start().unwrap();
    let (ended, said) = end(&mut second).await;
    assert_eq!(ended, Ended::Code(101), "{said}");
    assert_eq!(lines(&said, "Address already in use").len(), 1, "{said}");
    visit(address).unwrap();
    let (ended, said) = stop(first).await;
    assert_eq!(ended, Ended::Code(0), "{said}");
}

#[tokio::test]
async fn a_server_that_has_the_port_keeps_it() {
    let (place, address) = (Place::new(), free_port().unwrap());
    let port = address.port().to_string();
    let mut foreign = Spawn::new(planted()).arg(&port).start().unwrap();
    foreign.wait_listening(address, LIMIT).await.unwrap();
    let mut guard = place.guard(&[]).args([planted(), port]).start().unwrap();
    let (ended, said) = end(&mut guard).await;
    assert_eq!(ended, Ended::Code(101), "{said}");
    assert_eq!(lines(&said, "Address already in use").len(), 1, "{said}");
    assert_eq!(lines(&said, "it is started again"), [""; 0], "{said}");
    visit(address).unwrap();
}

#[tokio::test]
async fn a_command_that_cannot_be_executed_is_named_in_one_line() {
    let place = Place::new();
    let plain = place.path("plain");
    fs::write(&plain, "#!/bin/sh\n").unwrap();
    let interpreted = place.script("interpreted", "#!/no/such/interpreter\n");
    let table: [(&str, i32, &str); 4] = [
        ("no-such-program", 127, "is it installed, and on the PATH?"),
        (&plain, 126, "Permission denied"),
        (&place.path(""), 126, "Permission denied"),
        (&interpreted, 126, "its interpreter or loader is missing"),
    ];
    for (command, code, why) in table {
        let mut guard = place.guard(&[]).arg(command).start().unwrap();
        let (ended, said) = end(&mut guard).await;
        assert_eq!(ended, Ended::Code(code), "{said}");
        let errors = lines(&said, "error: ");
        assert_eq!(errors.len(), 1, "{said}");
        assert!(
            errors[0].contains(command) && errors[0].contains(why),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_restart_of_a_command_that_is_gone_changes_nothing() {
    let (place, address) = (Place::new(), free_port().unwrap());
    let script = format!("#!/bin/sh\nexec {} {}\n", planted(), address.port());
    let command = place.script("command", &script);
    let guard = place.guard(&["--quiet", "100ms"]).arg(&command);
    let mut guard = guard.start().unwrap();
    listens(&mut guard, 1).await;
    fs::remove_file(&command).unwrap();
    guard.signal(libc::SIGHUP).unwrap();
    guard
        .wait_output("generation 1 serves on", LIMIT)
        .await
        .unwrap();
    visit(address).unwrap();
    let (ended, said) = stop(guard).await;
    assert_eq!(ended, Ended::Code(0), "{said}");
    assert_eq!(lines(&said, "restart failed").len(), 1, "{said}");
}

#[tokio::test]
async fn privileges_that_are_not_gained_are_told() {
    if !is_root() {
        // Nobody else can make such a file.
        return;
    }
    let place = Place::new();
    let [plain, setuid] = ["plain", "setuid"].map(|name| place.path(name));
    for (file, mode) in [(&plain, 0o755), (&setuid, 0o4755)] {
        fs::copy("/bin/sleep", file).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    }
    let told = "is setuid to another user, which it does not gain here";
    for (file, ordinary, expected) in [
        (&setuid, true, 1),
        (&plain, true, 0),
        // Root needs no no_new_privs for a filter, and the bit has its effect.
        (&setuid, false, 0),
    ] {
        let guard = match ordinary {
            true => place.ordinary_guard(&[]),
            false => place.guard(&[]),
        };
        let mut guard = guard.args([file, "0"]).start().unwrap();
        let (ended, said) = end(&mut guard).await;
        assert_eq!(ended, Ended::Code(0), "{said}");
        assert_eq!(lines(&said, told).len(), expected, "{file}: {said}");
    }
}

#[tokio::test]
async fn a_command_that_becomes_a_daemon_is_guarded_as_if_it_had_not() {
    let (place, address) = (Place::new(), free_port().unwrap());
    // It forks, has a session of its own, and its parent has ended.
    let script = format!("(setsid {} {} &)", planted(), address.port());
    let guard = place.guard(&["--quiet", "100ms"]);
    let mut guard = guard.args(["sh", "-c", &script]).start().unwrap();
    listens(&mut guard, 1).await;
    guard.signal(libc::SIGHUP).unwrap();
    let over = guard.wait_line("generation 1 has ended after", LIMIT).await;
    assert!(over.unwrap().ends_with("nothing was cut off"));
    visit(address).unwrap();
    let (ended, said) = stop(guard).await;
    assert_eq!(ended, Ended::Code(0), "{said}");

    let guard = place.guard(&[]).args(["sh", "-c", &script]);
    let mut guard = guard.start().unwrap();
    listens(&mut guard, 1).await;
    guard.signal(libc::SIGKILL).unwrap();
    guard.wait_exit(LIMIT).await.unwrap();
    nothing_is_left(&guard).await;
}

#[tokio::test]
async fn whoever_ignores_the_signal_is_killed_with_all_that_it_has_started() {
    let place = Place::new();
    let script = "trap '' TERM; (setsid sleep 1000 &) ; echo runs; while :; do sleep 1000; done";
    let guard = place.guard(&["--quiet", "100ms", "--drain", "1s"]);
    let mut guard = guard.args(["sh", "-c", script]).start().unwrap();
    guard.wait_output("runs", LIMIT).await.unwrap();
    let (ended, said) = stop(guard).await;
    assert_eq!(ended, Ended::Code(4), "{said}");
    // In the log, and in the report.
    assert_eq!(lines(&said, "has ended after").len(), 1, "{said}");
    assert!(said.contains("told to stop, did not end"), "{said}");
}

/// Forks and ends, forks and ends: by the time a list of processes is read, it is another. It ends by itself after
/// a minute or so, should nobody have got hold of it.
const HOPS: &str = "#!/bin/sh\n[ \"$1\" -gt 20000 ] || exec setsid -f \"$0\" $(($1 + 1))\n";

#[tokio::test]
async fn whoever_forks_while_it_is_killed_is_killed_all_the_same() {
    let place = Place::new();
    let hops = place.script("hops", HOPS);
    let script = format!("trap '{hops} 0' TERM; echo runs; while :; do sleep 1 & wait; done");
    let guard = place.guard(&["--quiet", "100ms", "--drain", "1s"]);
    let mut guard = guard.args(["sh", "-c", &script]).start().unwrap();
    guard.wait_output("runs", LIMIT).await.unwrap();
    let (ended, said) = stop(guard).await;
    assert_eq!(ended, Ended::Code(4), "{said}");
    assert_eq!(lines(&said, "has ended after").len(), 1, "{said}");
}

#[tokio::test]
async fn a_next_generation_that_forks_while_it_is_killed_holds_nobody_up() {
    let (place, address) = (Place::new(), free_port().unwrap());
    let (hops, begun) = (place.script("hops", HOPS), place.path("begun"));
    let script = format!(
        "if [ -e {begun} ]; then {hops} 0; exec sleep 60; fi; touch {begun}; exec {} {}",
        planted(),
        address.port()
    );
    let guard = place.guard(&["--quiet", "100ms", "--ready-within", "1s"]);
    let mut guard = guard.args(["sh", "-c", &script]).start().unwrap();
    listens(&mut guard, 1).await;
    guard.signal(libc::SIGHUP).unwrap();
    guard
        .wait_output("generation 1 serves on", LIMIT)
        .await
        .unwrap();
    visit(address).unwrap();
    let (ended, said) = stop(guard).await;
    assert_eq!(ended, Ended::Code(0), "{said}");
}

#[tokio::test]
async fn of_two_generations_one_outlives_the_guard() {
    let (place, address) = (Place::new(), free_port().unwrap());
    let guard = place.guard(&["--quiet", "100ms", "--on-guard-death", "keep"]);
    let guard = guard.args([planted(), address.port().to_string()]);
    let mut guard = guard.start().unwrap();
    let first = pidfd(pid_of(&mut guard, 1).await);
    listens(&mut guard, 1).await;
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(b"GET /stream HTTP/1.1\r\nhost: guarded\r\n\r\n")
        .unwrap();
    stream.read_exact(&mut [0; 16]).unwrap();
    guard.signal(libc::SIGHUP).unwrap();
    let second = pid_of(&mut guard, 2).await;
    guard
        .wait_output("generation 1 finishes what it has", LIMIT)
        .await
        .unwrap();
    guard.signal(libc::SIGKILL).unwrap();
    guard.wait_exit(LIMIT).await.unwrap();
    // The first is told to end, which ends its stream, too.
    let _ = stream.read_to_end(&mut Vec::new());
    end_of(first).await;
    visit(address).unwrap();
    signal(second, libc::SIGTERM);
    nothing_is_left(&guard).await;
}

/// Restarts, kills and stops a server while clients connect to it; returns what the guard said.
async fn served(guard: Spawn, fault: &str) -> String {
    let address = free_port().unwrap();
    let guard = guard.args([planted(), address.port().to_string(), fault.to_owned()]);
    let mut guard = guard.start().unwrap();
    let pid = pid_of(&mut guard, 1).await;
    listens(&mut guard, 1).await;
    visit(address).unwrap();
    if fault == "reload" {
        signal(pid, libc::SIGHUP);
        let again = "is opened again: its queue was kept";
        guard.wait_output(again, LIMIT).await.unwrap();
        visit(address).unwrap();
    }
    guard.signal(libc::SIGHUP).unwrap();
    let over = guard.wait_line("generation 1 has ended after", LIMIT).await;
    assert!(over.unwrap().ends_with("nothing was cut off"));
    visit(address).unwrap();
    signal(pid_of(&mut guard, 2).await, libc::SIGKILL);
    // It waits in the queue until the next generation serves.
    visit(address).unwrap();
    listens(&mut guard, 3).await;
    guard.signal(libc::SIGHUP).unwrap();
    let over = guard.wait_line("generation 3 has ended after", LIMIT).await;
    assert!(over.unwrap().ends_with("nothing was cut off"));
    visit(address).unwrap();
    let (ended, said) = stop(guard).await;
    assert_eq!(ended, Ended::Code(0), "{said}");
    said
}

#[tokio::test]
async fn an_ordinary_user_guards_as_root_does() {
    let place = Place::new();
    for fault in ["none", "reload"] {
        let said = served(place.ordinary_guard(&["--quiet", "100ms"]), fault).await;
        assert_eq!(lines(&said, "may not be"), [""; 0], "{said}");
    }
}

#[tokio::test]
async fn where_descriptors_may_not_be_opened_listeners_are_replaced() {
    let place = Place::new();
    let mode = "its descriptors may not be opened here (pidfd_getfd: Operation not permitted";
    for refuse in [Refuse::Descriptors, Refuse::DescriptorsAndMemory] {
        for fault in ["none", "reload"] {
            let guard = place.ordinary_guard(&["--quiet", "100ms"]).refuse(refuse);
            let said = served(guard, fault).await;
            // Once a generation.
            assert_eq!(lines(&said, mode).len(), 4, "{said}");
            assert_eq!(lines(&said, "could not be looked at"), [""; 0], "{said}");
        }
    }
}

/// Whether a server can listen by io_uring here; if not, that is told.
async fn has_io_uring() -> bool {
    let address = free_port().unwrap();
    let alone = Spawn::new(planted()).args([&address.port().to_string(), "ring"]);
    let words = match alone.start().unwrap().wait_listening(address, LIMIT).await {
        Ok(()) => return true,
        Err(ProcessError::EndedEarly { words, .. }) => words,
        Err(error) => panic!("{error}"),
    };
    let refusals = [libc::ENOSYS, libc::EPERM, libc::EINVAL].map(|code| format!("code: {code},"));
    let refused = refusals.iter().any(|code| words.contains(code));
    assert!(refused, "{words}");
    eprintln!("skipped: {words}");
    false
}

#[tokio::test]
async fn a_listener_of_io_uring_is_told_and_a_ring_for_files_is_not() {
    if !has_io_uring().await {
        return;
    }
    let place = Place::new();
    let [ring, idle] = [(); 2].map(|()| free_port().unwrap());
    let script = format!(
        "{planted} {} idle-ring & {planted} {} ring & wait",
        idle.port(),
        ring.port(),
        planted = planted()
    );
    for guard in [
        place.guard(&["--quiet", "100ms"]),
        place.ordinary_guard(&["--quiet", "100ms"]),
    ] {
        let mut guard = guard.args(["sh", "-c", &script]).start().unwrap();
        listens(&mut guard, 1).await;
        let past = "past the guard, as io_uring makes possible";
        guard.wait_output(past, LIMIT).await.unwrap();
        visit(ring).unwrap();
        let (ended, said) = stop(guard).await;
        assert_eq!(ended, Ended::Code(0), "{said}");
        let [told] = lines(&said, past)[..] else {
            panic!("{said}");
        };
        assert!(
            told.contains(&format!("it listens on {ring} past")),
            "{said}"
        );
        assert!(told.contains("--listen"), "{said}");
    }
}

/// Guards, each with why it hears of no listener: the inner one of two, and one that may set no filter.
fn deaf_guards(place: &Place, mode: &str) -> [(Spawn, &'static str); 2] {
    let (sundown, options) = (cargo_bin!("sundown"), ["--quiet", "100ms"]);
    let inner = place.guard(&options).arg(sundown);
    let refused = place.guard(&["--mode", mode]).refuse(Refuse::Filters);
    [
        (
            inner.args(["run", "--mode", mode, "--"]),
            "another supervisor hears its system calls already",
        ),
        (refused, "seccomp(2) says: Operation not permitted"),
    ]
}

#[tokio::test]
async fn where_listeners_cannot_be_heard_of_a_stop_is_a_signal() {
    let place = Place::new();
    for (guard, why) in deaf_guards(&place, "auto") {
        let address = free_port().unwrap();
        let guard = guard.args([planted(), address.port().to_string()]);
        let mut guard = guard.start().unwrap();
        guard.wait_output("planted: ready", LIMIT).await.unwrap();
        guard.wait_listening(address, LIMIT).await.unwrap();
        visit(address).unwrap();
        let (ended, said) = stop(guard).await;
        assert_eq!(ended, Ended::Code(0), "{said}");
        let told = lines(&said, "its listeners cannot be guarded");
        assert_eq!(told.len(), 1, "{said}");
        assert!(told[0].contains(why), "{said}");
    }
}

#[tokio::test]
async fn a_guard_of_a_guard_restarts_it() {
    let (place, address) = (Place::new(), free_port().unwrap());
    let [(guard, _), _] = deaf_guards(&place, "auto");
    let guard = guard.args([planted(), address.port().to_string()]);
    let mut guard = guard.start().unwrap();
    listens(&mut guard, 1).await;
    guard.signal(libc::SIGHUP).unwrap();
    let over = guard.wait_line("sundown: generation 1 has ended after", LIMIT);
    assert!(over.await.unwrap().ends_with("nothing was cut off"));
    visit(address).unwrap();
    let (ended, said) = stop(guard).await;
    assert_eq!(ended, Ended::Code(0), "{said}");
}

#[tokio::test]
async fn nothing_is_started_where_listeners_must_be_heard_of_and_cannot() {
    let place = Place::new();
    let begun = place.path("begun");
    for (guard, why) in deaf_guards(&place, "kernel") {
        let mut guard = guard.args(["touch", &begun]).start().unwrap();
        let (ended, said) = end(&mut guard).await;
        assert_eq!(ended, Ended::Code(2), "{said}");
        let told = lines(&said, "error: ");
        assert_eq!(told.len(), 1, "{said}");
        assert!(
            told[0].contains(why) && told[0].contains("--mode auto"),
            "{said}"
        );
        assert!(!fs::exists(&begun).unwrap());
    }
}

#[tokio::test]
async fn where_listeners_cannot_be_heard_of_a_url_tells_all_the_same() {
    let place = Place::new();
    for (path, outcome) in [
        ("fast", "unheard: ready"),
        ("ledger/not-there", "generation 1 is not ready within 1s"),
    ] {
        let address = free_port().unwrap();
        let url = format!("http://{address}/{path}");
        let options = ["--name", "unheard", "--ready", &url, "--ready-within", "1s"];
        let guard = place.guard(&options).refuse(Refuse::Filters);
        let guard = guard.args([planted(), address.port().to_string()]);
        let mut guard = guard.start().unwrap();
        guard.wait_output(outcome, LIMIT).await.unwrap();
        let (ended, said) = stop(guard).await;
        assert_eq!(ended, Ended::Code(0), "{said}");
        let ready = !lines(&said, "unheard: ready").is_empty();
        assert_eq!(ready, path == "fast", "{said}");
    }
}

#[tokio::test]
async fn nobody_else_asks_a_guard() {
    let place = Place::new();
    let address = free_port().unwrap();
    let guard = place.guard(&["--name", "private"]);
    let mut guard = guard
        .args([planted(), address.port().to_string()])
        .start()
        .unwrap();
    listens(&mut guard, 1).await;
    let folder = place.path(if is_root() { "own" } else { "guards" });
    let socket = format!("{folder}/private.sock");
    for (path, mode) in [(&folder, 0o700), (&socket, 0o600)] {
        let found = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{path}");
    }
    if is_root() {
        // Somebody has opened both to all: who asks is looked at all the same.
        for path in [&folder, &socket] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let user = format!("--reuid={NOBODY}");
        let asked = std::process::Command::new("setpriv")
            .args([&user, "--clear-groups", "--"])
            .arg(cargo_bin!("sundown"))
            .args(["stop", "--name", "private"])
            .env("SUNDOWN_RUN_DIR", &folder)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&asked.stderr);
        assert!(!asked.status.success(), "{said}");
        assert!(said.contains("the guard private does not answer"), "{said}");
        visit(address).unwrap();
    }
    let (ended, said) = stop(guard).await;
    assert_eq!(ended, Ended::Code(0), "{said}");
}

/// As where a container's root guards, and setpriv makes the service another user's.
#[tokio::test]
async fn listeners_of_another_user_are_shared_and_held() {
    if !is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let place = Place::new();
    for options in [
        &["--quiet", "100ms"][..],
        &["--quiet", "100ms", "--no-overlap"],
    ] {
        let address = free_port().unwrap();
        let [user, group] = ["--reuid", "--regid"].map(|option| format!("{option}={NOBODY}"));
        let guard = place.guard(options);
        let guard = guard.args(["setpriv", &user, &group, "--clear-groups", "--"]);
        let guard = guard.args([planted(), address.port().to_string()]);
        let mut guard = guard.start().unwrap();
        listens(&mut guard, 1).await;
        guard.signal(libc::SIGHUP).unwrap();
        let takes = "generation 2 takes what connects";
        guard.wait_output(takes, LIMIT).await.unwrap();
        visit(address).unwrap();
        let (ended, said) = stop(guard).await;
        assert_eq!(ended, Ended::Code(0), "{said}");
    }
}

/// One that gains capabilities by its file, as `setcap cap_net_bind_service+ep` makes it.
#[tokio::test]
async fn capabilities_that_a_file_would_give_are_told_of() {
    if !is_root() {
        eprintln!("skipped: only root can give a file capabilities");
        return;
    }
    let place = Place::new();
    let file = place.path("capable");
    fs::copy("/bin/sleep", &file).unwrap();
    // `struct vfs_cap_data` (linux/capability.h): revision 2, effective, and CAP_NET_BIND_SERVICE.
    let words: [u32; 5] = [0x0200_0001, 1 << 10, 0, 0, 0];
    let value: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    let (path, name) = (CString::new(file.clone()).unwrap(), c"security.capability");
    // SAFETY: both names end with a zero byte, and the value is as long as is said.
    let set = unsafe {
        libc::setxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    if set != 0 {
        eprintln!("skipped: {}", std::io::Error::last_os_error());
        return;
    }
    let guard = place.ordinary_guard(&["--quiet", "100ms"]);
    let mut guard = guard.args([&file, "1000"]).start().unwrap();
    pid_of(&mut guard, 1).await;
    let (_, said) = stop(guard).await;
    let told = lines(&said, "capabilities");
    assert_eq!(told.len(), 1, "{said}");
}
