//! Clients that nobody has accepted at the instant of a restart or a stop: in the queue of a frozen server, or
//! with their handshake under way.

use std::fs;
use std::io;
use std::ops::Range;
use std::time::Duration;

use anyhow::{bail, ensure};
use sundown_verify::http1::{Connection, Letter};
use sundown_verify::tcp::Window;
use sundown_verify::{Outcome, Request, outcome};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::long::read_to_end;
use super::sockets::{Deaf, InFront};
use super::{Class, During, Ground, Guarded, LIMIT};

/// No part of this is long, but a frozen server is.
const OPTIONS: [&str; 4] = ["--quiet", "1s", "--drain", "30s"];

/// How long a server stays frozen after it was told, or would have been.
const FROZEN: Duration = Duration::from_millis(300);

/// How long it takes from the first handshake's beginning to the last one's.
const SPREAD: Duration = Duration::from_millis(300);

/// From the first handshake's beginning to the stop, or to the moment at which the next generation takes over.
///
/// Each goes on a second after its beginning, when the kernel says again what was not heard: less than the second
/// after the moment that the guard waits for it. Who is silent for longer than that is gone, as far as it can know.
const EARLIER: Duration = Duration::from_millis(600);

/// When that moment may come in fact, and all can hear again: what is repeated before that is not heard either.
const WITHIN: Range<Duration> = Duration::from_millis(350)..Duration::from_millis(900);

/// How often the moment may be missed, by a server that starts sooner or later than in its rehearsal.
const TRIES: u32 = 8;

/// Freezes the server, lets so many connect and ask, and restarts or stops it.
pub(super) async fn in_the_queue(
    ground: &Ground<'_>,
    held: usize,
    during: During,
) -> anyhow::Result<Class> {
    ground.progress(&format!("a {} with a queue", during.name()));
    let mut server = ground.start(&OPTIONS).await?;
    let address = server.address;
    let frozen = Frozen::freeze(ground).await?;
    let mut asked = JoinSet::new();
    for _ in 0..held {
        asked.spawn(async move {
            let letter = Letter::new(&[Request::get("/fast")], address);
            let opened = Connection::open(address, Window::Usual, LIMIT).await;
            let mut connection = opened.map_err(|unmade| unmade.error.to_string())?;
            let exchange = connection.exchange(&letter, LIMIT).await;
            match outcome::judge(&exchange.evidence(0)) {
                Outcome::Answered { .. } => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
    let queued = InFront {
        queued: held,
        shaking: 0,
    };
    InFront::wait(address.port(), queued).await?;
    begin(&mut server, during).await?;
    sleep(FROZEN).await;
    drop(frozen);
    let told = asked.join_all().await;
    end(server, during).await?;
    Ok(Class::of("connections in its queue", during, told))
}

/// Lets so many shake hands, and restarts or stops the server before they are done.
pub(super) async fn shaking_hands(
    ground: &Ground<'_>,
    handshakes: usize,
    during: During,
) -> anyhow::Result<Class> {
    for number in 1..=TRIES {
        let words = format!("a {} with handshakes, try {number}", during.name());
        ground.progress(&words);
        let mut server = ground.start(&OPTIONS).await?;
        // As a rehearsal, so that the moment is known.
        let began = Instant::now();
        let takes = match during {
            During::Stop => Duration::ZERO,
            During::Restart => {
                server.restart().await?;
                let takes = began.elapsed();
                server.before_has_ended(LIMIT).await?;
                takes
            }
        };
        let (moment, asked) = shake(&mut server, handshakes, during, takes).await?;
        let told = asked.join_all().await;
        end(server, during).await?;
        if moment.iter().all(|at| WITHIN.contains(at)) {
            return Ok(Class::of("handshakes under way", during, told));
        }
    }
    bail!("the moment of handshakes was not met in {TRIES} tries")
}

type Asked = JoinSet<Result<(), String>>;

/// Begins handshakes, and the restart or the stop so that it comes EARLIER after the first of them if it
/// `takes` so long; returns when it came, and when all could hear again.
async fn shake(
    server: &mut Guarded,
    handshakes: usize,
    during: During,
    takes: Duration,
) -> anyhow::Result<([Duration; 2], Asked)> {
    let address = server.address;
    let shaking = async {
        sleep(takes.saturating_sub(EARLIER)).await;
        let began = Instant::now();
        let (mut deaf, mut asked) = (Vec::new(), Asked::new());
        for _ in 0..handshakes {
            let (client, connecting) = Deaf::connect(address)?;
            deaf.push(client);
            asked.spawn(async move {
                let connected = connecting.await;
                ask(connected.map_err(|error| format!("no connection: {error}"))?).await
            });
            sleep(SPREAD / handshakes as u32).await;
        }
        let found = InFront::of(address.port())?;
        let expected = InFront {
            queued: 0,
            shaking: handshakes,
        };
        ensure!(found == expected, "{found:?} instead of {expected:?}");
        anyhow::Ok((began, deaf, asked))
    };
    let telling = async {
        sleep(EARLIER.saturating_sub(takes)).await;
        begin(server, during).await?;
        anyhow::Ok(Instant::now())
    };
    let (shaking, told) = tokio::try_join!(shaking, telling)?;
    let (began, deaf, asked) = shaking;
    deaf.into_iter().try_for_each(Deaf::hear)?;
    let moment = [told, Instant::now()].map(|at| at.saturating_duration_since(began));
    Ok((moment, asked))
}

async fn ask(mut stream: TcpStream) -> Result<(), String> {
    let request = b"GET /fast HTTP/1.1\r\nHost: peer\r\nConnection: close\r\n\r\n";
    let answered = async {
        stream.write_all(request).await?;
        read_to_end(&mut stream).await
    };
    match timeout(LIMIT, answered).await {
        Ok(Ok(answer)) if answer.ends_with("\r\n\r\nok") => Ok(()),
        Ok(Ok(answer)) => Err(format!("{} bytes of an answer", answer.len())),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("nothing within {LIMIT:?}")),
    }
}

/// Returns when nobody who connects from now on goes to this generation.
async fn begin(server: &mut Guarded, during: During) -> anyhow::Result<()> {
    match during {
        During::Restart => server.restart().await,
        During::Stop => {
            server.guard.signal(libc::SIGTERM)?;
            server.guard.wait_output("SIGTERM: stopping", LIMIT).await?;
            Ok(())
        }
    }
}

async fn end(mut server: Guarded, during: During) -> anyhow::Result<()> {
    if during == During::Restart {
        server.before_has_ended(LIMIT).await?;
        server.guard.signal(libc::SIGTERM)?;
    }
    server.has_ended(LIMIT).await
}

/// The processes of the current generation, which do nothing until this is dropped.
struct Frozen(Vec<i32>);

impl Frozen {
    async fn freeze(ground: &Ground<'_>) -> anyhow::Result<Self> {
        let mut frozen = Self(vec![ground.server.current(ground.run_dir)?]);
        let mut at = 0;
        while let Some(&pid) = frozen.0.get(at) {
            // SAFETY: it sends a signal to what the guard has started, or to what descends from it.
            unsafe { libc::kill(pid, libc::SIGSTOP) };
            let began = Instant::now();
            while !is_stopped(pid)? {
                ensure!(began.elapsed() < LIMIT, "{pid} does not freeze");
                sleep(Duration::from_millis(1)).await;
            }
            // It starts no more of them.
            frozen.0.extend(children(pid)?);
            at += 1;
        }
        Ok(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for &pid in &self.0 {
            // SAFETY: it sends a signal; as long as they are stopped nobody reaps them.
            unsafe { libc::kill(pid, libc::SIGCONT) };
        }
    }
}

/// Whether every thread is in state T (proc_pid_stat(5)).
fn is_stopped(pid: i32) -> io::Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(thread?.path().join("stat"))?;
        // The name before it may contain anything.
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        if !state.is_some_and(|state| state.starts_with('T')) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn children(pid: i32) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let list = fs::read_to_string(thread?.path().join("children"))?;
        found.extend(
            list.split_whitespace()
                .filter_map(|pid| pid.parse::<i32>().ok()),
        );
    }
    Ok(found)
}
