//! Requests that take longer than the guard's quiet: a handler, a body that is sent with a pause, and events
//! with gaps, while the server is restarted and then stopped.
//!
//! Every second connection was answered once before, every fourth in the very instant before, where the guard may
//! load BPF. All let the kernel ask every second whether the other side is there: that must not pass for news of
//! the client.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Class, During, Ground, sockets};
use crate::guarded::server::Server;

/// How many events come.
const EVENTS: u32 = 4;

/// How long a body is.
const BODY: usize = 128 * 1024;

/// Between an answer and the next request on its connection: more than a tick of the kernel's, within which the
/// guard can tell them apart by BPF alone.
const BETWEEN: Duration = Duration::from_millis(100);

#[derive(Clone, Copy)]
enum Long {
    /// The handler takes four times quiet.
    Handler,
    /// Half of the body, a pause longer than quiet, and the rest.
    Upload,
    /// Gaps of three fifths of quiet.
    Events,
}

impl Long {
    const ALL: [Self; 3] = [Self::Handler, Self::Upload, Self::Events];

    fn is_of(self, server: &Server<'_>) -> bool {
        match self {
            Self::Handler | Self::Upload => server.is_peer(),
            Self::Events => server.is_paced(),
        }
    }

    fn what(self, quiet: Duration) -> String {
        let quiet = quiet.as_secs_f32();
        match self {
            Self::Handler => format!("handlers of {} s, probed every second", quiet * 4.0),
            Self::Upload => format!("bodies with a pause of {} s", quiet * 1.5),
            Self::Events => format!("{EVENTS} events with gaps of {} s", quiet * 0.6),
        }
    }

    fn head(self, quiet: Duration) -> String {
        let line = match self {
            Self::Handler => format!("GET /slow?ms={}", (quiet * 4).as_millis()),
            Self::Upload => "POST /upload".to_owned(),
            Self::Events => {
                let gap = quiet.mul_f32(0.6).as_millis();
                format!("GET /events?gap={gap}&count={EVENTS}")
            }
        };
        let length = match self {
            Self::Upload => format!("Content-Length: {BODY}\r\n"),
            Self::Handler | Self::Events => String::new(),
        };
        format!("{line} HTTP/1.1\r\nHost: peer\r\nConnection: close\r\n{length}\r\n")
    }

    fn is_whole(self, answer: &str) -> bool {
        let ends = match self {
            Self::Handler => answer.ends_with("\r\n\r\nok"),
            Self::Upload => answer.ends_with(&format!("\r\n\r\ngot {BODY}")),
            Self::Events => {
                let events = answer.matches("data: more").count();
                events == EVENTS as usize && answer.ends_with("\r\n0\r\n\r\n")
            }
        };
        answer.starts_with("HTTP/1.1 200") && ends
    }
}

/// Restarts and stops a server with so many of each kind under way.
pub(super) async fn measure(
    ground: &Ground<'_>,
    each: usize,
    quiet: Duration,
) -> anyhow::Result<Vec<Class>> {
    let kinds = Long::ALL
        .into_iter()
        .filter(|long| long.is_of(ground.server));
    let kinds: Vec<Long> = kinds.collect();
    if kinds.is_empty() {
        return Ok(Vec::new());
    }
    // Twice as long as a server of few threads may take for all of them.
    let drain = quiet * 16;
    let (quiet_option, drain_option) = (format!("{quiet:?}"), format!("{drain:?}"));
    let options = ["--quiet", &quiet_option, "--drain", &drain_option];
    let mut server = ground.start(&options).await?;
    let mut classes = Vec::new();
    let immediate = ground.server.rights.may_load_bpf();
    for during in During::BOTH {
        ground.progress(&format!("a {} with long requests", during.name()));
        let address = server.address;
        let asked = kinds.iter().map(|&long| {
            let ask = |number| {
                let before = answered_before(number, immediate);
                ask(address, long, quiet, before, drain)
            };
            (long, (0..each).map(ask).collect::<JoinSet<_>>())
        });
        let asked: Vec<_> = asked.collect();
        // The pauses of all have begun by then.
        sleep(quiet / 5).await;
        match during {
            During::Restart => {
                server.restart().await?;
                server.before_has_ended(drain * 2).await?;
            }
            During::Stop => {
                server.guard.signal(libc::SIGTERM)?;
                server.has_ended(drain * 2).await?;
            }
        }
        for (long, asked) in asked {
            let told = asked.join_all().await;
            classes.push(Class::of(long.what(quiet), during, told));
        }
    }
    Ok(classes)
}

/// How long before its request a connection was answered, if it was; `immediate` lets that be no time at all.
fn answered_before(number: usize, immediate: bool) -> Option<Duration> {
    match number % 4 {
        1 => Some(BETWEEN),
        3 if immediate => Some(Duration::ZERO),
        3 => Some(BETWEEN),
        _ => None,
    }
}

/// Asks, and reads to the end.
async fn ask(
    address: SocketAddr,
    long: Long,
    quiet: Duration,
    answered_before: Option<Duration>,
    limit: Duration,
) -> Result<(), String> {
    let asked = async {
        let mut stream = connect(address).await?;
        if let Some(between) = answered_before {
            stream
                .write_all(b"GET /fast HTTP/1.1\r\nHost: peer\r\n\r\n")
                .await?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\nok") {
                if stream.read_buf(&mut answer).await? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
            if !between.is_zero() {
                sleep(between).await;
            }
            if answer
                .to_ascii_lowercase()
                .windows(17)
                .any(|text| text == b"connection: close")
            {
                // Nothing follows an answer of this server.
                stream = connect(address).await?;
            }
        }
        stream.write_all(long.head(quiet).as_bytes()).await?;
        if let Long::Upload = long {
            let half = vec![b'u'; BODY / 2];
            stream.write_all(&half).await?;
            sleep(quiet.mul_f32(1.5)).await;
            stream.write_all(&half).await?;
        }
        read_to_end(&mut stream).await
    };
    let after = match answered_before {
        None => "first",
        Some(Duration::ZERO) => "second and immediate",
        Some(_) => "second",
    };
    match timeout(limit * 2, asked).await {
        Ok(Ok(answer)) if long.is_whole(&answer) => Ok(()),
        Ok(Ok(answer)) => Err(format!(
            "{after} request: {} bytes of an answer",
            answer.len()
        )),
        Ok(Err(error)) => Err(format!("{after} request: {error}")),
        Err(_) => Err(format!("{after} request: nothing within {:?}", limit * 2)),
    }
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    sockets::probe(&stream)?;
    Ok(stream)
}

/// Reads until the server closes.
pub(super) async fn read_to_end(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_only_with_its_end() {
        let table = [
            (Long::Handler, "HTTP/1.1 200 OK\r\nA: b\r\n\r\nok", true),
            (Long::Handler, "HTTP/1.1 200 OK\r\nA: b\r\n\r\no", false),
            (Long::Handler, "HTTP/1.1 503 No\r\nA: b\r\n\r\nok", false),
            (Long::Upload, "HTTP/1.1 200 OK\r\n\r\ngot 131072", true),
            (Long::Upload, "HTTP/1.1 200 OK\r\n\r\ngot 65536", false),
        ];
        for (long, answer, expected) in table {
            assert_eq!(long.is_whole(answer), expected, "{answer}");
        }
        let events = |count, end| {
            let event = "c\r\ndata: more\n\n\r\n";
            format!("HTTP/1.1 200 OK\r\n\r\n{}{end}", event.repeat(count))
        };
        assert!(Long::Events.is_whole(&events(4, "0\r\n\r\n")));
        assert!(!Long::Events.is_whole(&events(3, "0\r\n\r\n")));
        assert!(!Long::Events.is_whole(&events(4, "")));
    }
}
