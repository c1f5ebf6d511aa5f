//! Finds what is to be judged among what runs already.
//!
//! The promise: what is found exists, is not this command itself nor the init of the system, may be
//! signalled, and takes connections; whatever is missing is told in one line. Does nothing to it but
//! to connect.

mod systemctl;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::listeners;
use crate::outcome::End;
use crate::pidfd::Pidfd;
use crate::process::SignalTo;
use crate::target::{Attached, Look, Reached, Target, Unit};
use crate::tcp::{Window, connect, end_of_connect};
pub(crate) use systemctl::{State, systemctl};

/// Means that there is nothing to attach to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// It is PID 1.
    #[error(
        "process 1 is the init of this system or container, and ends everything with it: give the PID of the service itself"
    )]
    Init,
    /// It is this process.
    #[error("process {pid} is this command itself: give the PID of the service")]
    Myself {
        /// Its number.
        pid: u32,
    },
    /// There is no such process, or no longer.
    #[error("no process has the PID {pid}")]
    NoProcess {
        /// Its number.
        pid: u32,
    },
    /// It belongs to somebody else.
    #[error("process {pid} may not be signalled: be its user, or root")]
    Forbidden {
        /// Its number.
        pid: u32,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Its group is ours.
    #[error(
        "process {pid} is in the process group of this command, which the signal would end, too: give --signal-to leader"
    )]
    OwnGroup {
        /// Its number.
        pid: u32,
    },
    /// Its descriptors cannot be listed.
    #[error(
        "the sockets of process {pid} may not be seen: be its user, or root, or say by --url where it listens"
    )]
    Sockets {
        /// Its number.
        pid: u32,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// It listens nowhere.
    #[error(
        "process {pid} ({name}) listens nowhere: give the PID of the one that does, or say by --url where it is reached"
    )]
    NotListening {
        /// Its number.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// It listens on more than one port.
    #[error("process {pid} ({name}) listens on {addresses}: say by --url which is meant")]
    Several {
        /// Its number.
        pid: u32,
        /// Its name.
        name: String,
        /// Where.
        addresses: String,
    },
    /// Its addresses are not ours.
    #[error("process {pid} has a network of its own: say by --url how it is reached from here")]
    OtherNetwork {
        /// Its number.
        pid: u32,
    },
    /// Nobody listens where it is to be.
    #[error("nobody takes a connection on {address}: start it first")]
    Unreachable {
        /// Where.
        address: SocketAddr,
    },
    /// `systemctl` is not there.
    #[error("systemctl could not be run")]
    NoSystemctl(#[source] io::Error),
    /// `systemctl` refused, or took too long.
    #[error("systemctl {what}: {words}")]
    Systemctl {
        /// Verb and unit.
        what: String,
        /// What it said.
        words: String,
    },
    /// systemd has no such unit.
    #[error("systemd knows no unit called {name}")]
    NoUnit {
        /// Its name.
        name: String,
    },
    /// The unit does not run, or is none that has a main process.
    #[error(
        "unit {name} has no main process (it is {state}): start it first, by systemctl start {name}"
    )]
    NoMainProcess {
        /// Its name.
        name: String,
        /// Its `ActiveState`.
        state: String,
    },
}

/// Attaches to a process; without a URL its address is found from its sockets.
///
/// # Errors
/// If it cannot be signalled or reached, or should not be.
pub async fn pid(pid: u32, url: Option<SocketAddr>, to: SignalTo) -> Result<Target, AttachError> {
    match pid {
        1 => return Err(AttachError::Init),
        _ if pid == std::process::id() => return Err(AttachError::Myself { pid }),
        _ => {}
    }
    let fd = open(pid)?;
    let group = group_of(pid);
    if to == SignalTo::Group && group == group_of(std::process::id()) {
        return Err(AttachError::OwnGroup { pid });
    }
    let (address, look) = whereabouts(pid, url).await?;
    Ok(Target::Pid(Attached {
        pid,
        name: name_of(pid),
        address,
        group,
        fd: Arc::new(fd),
        look,
    }))
}

/// Attaches to a unit of systemd that runs.
///
/// # Errors
/// If systemd knows no such unit, or it does not run, or it cannot be reached.
pub async fn unit(name: &str, url: Option<SocketAddr>) -> Result<Target, AttachError> {
    let state = State::of(name).await?;
    let pid = state.main_process(name)?;
    let (address, _) = whereabouts(pid, url).await?;
    Ok(Target::Unit(Unit {
        name: name.to_owned(),
        pid,
        process: name_of(pid),
        address,
        given: url.is_some(),
        kill_signal: state.kill_signal(),
    }))
}

/// Attaches to something that is known by its address only.
///
/// # Errors
/// If nobody takes a connection there.
pub async fn url(
    address: SocketAddr,
    stop: Vec<std::ffi::OsString>,
    again: Option<Vec<std::ffi::OsString>>,
) -> Result<Target, AttachError> {
    if !somebody_at(address).await {
        return Err(AttachError::Unreachable { address });
    }
    Ok(Target::Url(Reached {
        address,
        stop,
        again,
    }))
}

/// Opens a process that may be signalled.
pub(crate) fn open(pid: u32) -> Result<Pidfd, AttachError> {
    // The kernel takes it for a signed number.
    let exists = i32::try_from(pid).is_ok_and(|pid| pid > 0);
    let opened = exists.then(|| Pidfd::open(pid).ok()).flatten();
    let fd = opened.ok_or(AttachError::NoProcess { pid })?;
    if fd.has_ended() {
        return Err(AttachError::NoProcess { pid });
    }
    fd.signal(0)
        .map_err(|source| AttachError::Forbidden { pid, source })?;
    Ok(fd)
}

/// Where a process is reached, and how it is seen whether it listens there.
pub(crate) async fn whereabouts(
    pid: u32,
    url: Option<SocketAddr>,
) -> Result<(SocketAddr, Look), AttachError> {
    let ours = network_of("self").is_some_and(|ours| network_of(pid) == Some(ours));
    let listening = listeners::of(pid);
    if let Some(address) = url {
        let known = |found: &SocketAddr| found.port() == address.port() && is_here(address.ip());
        let in_table = ours && listening.is_ok_and(|found| found.iter().any(known));
        let look = if in_table { Look::Table } else { Look::Connect };
        return match somebody_at(address).await {
            true => Ok((address, look)),
            false => Err(AttachError::Unreachable { address }),
        };
    }
    let listening = listening.map_err(|source| AttachError::Sockets { pid, source })?;
    if !ours {
        return Err(AttachError::OtherNetwork { pid });
    }
    let candidates = candidates(pid, &listening)?;
    for address in &candidates {
        if somebody_at(*address).await {
            return Ok((*address, Look::Table));
        }
    }
    let address = candidates[0];
    Err(AttachError::Unreachable { address })
}

/// The same of a process that was just started, and may need a while to listen.
pub(crate) async fn soon(
    pid: u32,
    url: Option<SocketAddr>,
    limit: Duration,
) -> Result<(SocketAddr, Look), AttachError> {
    let deadline = Instant::now() + limit;
    loop {
        match whereabouts(pid, url).await {
            Err(AttachError::NotListening { .. } | AttachError::Unreachable { .. })
                if Instant::now() < deadline =>
            {
                sleep(Duration::from_millis(10)).await;
            }
            found => return found,
        }
    }
}

/// Where to connect in order to reach one port, the best first.
fn candidates(pid: u32, listening: &[SocketAddr]) -> Result<Vec<SocketAddr>, AttachError> {
    let name = || name_of(pid);
    let mut found: Vec<SocketAddr> = listening
        .iter()
        .flat_map(|address| to_connect(*address))
        .collect();
    // A v4 loopback address first: its clients have a source address each.
    found.sort_by_key(|address| (address.port(), !address.ip().is_loopback(), *address));
    found.dedup();
    let Some(first) = found.first() else {
        return Err(AttachError::NotListening { pid, name: name() });
    };
    if found.iter().any(|address| address.port() != first.port()) {
        let mut addresses: Vec<String> = listening.iter().map(ToString::to_string).collect();
        addresses.sort();
        addresses.dedup();
        return Err(AttachError::Several {
            pid,
            name: name(),
            addresses: addresses.join(" and "),
        });
    }
    Ok(found)
}

/// A listener on every address is reached on loopback; one on `[::]` mostly by IPv4, too.
fn to_connect(listening: SocketAddr) -> Vec<SocketAddr> {
    let ips: Vec<IpAddr> = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![Ipv4Addr::LOCALHOST.into()],
        IpAddr::V6(ip) if ip.is_unspecified() => {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        }
        ip => vec![ip],
    };
    let with_port = |ip| SocketAddr::new(ip, listening.port());
    ips.into_iter().map(with_port).collect()
}

/// Tells whether an address is this machine's: only such a one can be bound.
fn is_here(ip: IpAddr) -> bool {
    std::net::UdpSocket::bind((ip, 0)).is_ok()
}

/// How long a connect may take. A full queue drops it, and the kernel asks again after a second; a
/// host that is gone is told after three.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);

/// Tells whether somebody listens, by connecting. Only a refusal and a host that is gone say no.
pub(crate) async fn somebody_at(address: SocketAddr) -> bool {
    match timeout(CONNECT_LIMIT, connect(address, Window::Usual)).await {
        Ok(Ok(_)) | Err(_) => true,
        Ok(Err(error)) => {
            let gone = [libc::EHOSTUNREACH, libc::ENETUNREACH, libc::EHOSTDOWN];
            let is_gone = error
                .raw_os_error()
                .is_some_and(|code| gone.contains(&code));
            end_of_connect(&error) != End::Refused && !is_gone
        }
    }
}

/// The process's name, as far as it is known.
fn name_of(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    name.map_or_else(|_| "?".to_owned(), |name| name.trim().to_owned())
}

fn network_of(pid: impl std::fmt::Display) -> Option<std::path::PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()
}

fn group_of(pid: u32) -> libc::pid_t {
    // SAFETY: getpgid(2) takes a number.
    unsafe { libc::getpgid(pid as libc::pid_t) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(listening: &[&str]) -> Result<Vec<String>, String> {
        let listening: Vec<SocketAddr> = listening.iter().map(|one| one.parse().unwrap()).collect();
        let found = candidates(u32::MAX, &listening).map_err(|error| error.to_string())?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn one_port_is_reached_on_loopback_where_it_can_be() {
        let table: &[(&[&str], &[&str])] = &[
            (&["127.0.0.1:80"], &["127.0.0.1:80"]),
            (&["0.0.0.0:80", "[::]:80"], &["127.0.0.1:80", "[::1]:80"]),
            (
                &["10.0.0.7:80", "127.0.0.1:80"],
                &["127.0.0.1:80", "10.0.0.7:80"],
            ),
            (&["10.0.0.7:80"], &["10.0.0.7:80"]),
        ];
        for (listening, expected) in table {
            assert_eq!(reached(listening).unwrap(), *expected, "{listening:?}");
        }
    }

    #[test]
    fn no_port_and_several_are_told() {
        assert!(reached(&[]).unwrap_err().contains("listens nowhere"));
        let several = reached(&["0.0.0.0:80", "127.0.0.1:9090"]).unwrap_err();
        assert!(
            several.contains("listens on 0.0.0.0:80 and 127.0.0.1:9090: say by --url"),
            "{several}"
        );
    }

    #[tokio::test]
    async fn what_must_not_be_stopped_is_refused() {
        let own = std::process::id();
        for (number, expected) in [
            (1, "process 1 is the init"),
            (own, "is this command itself"),
            (0, "no process has the PID 0"),
            (u32::MAX, "no process has the PID"),
        ] {
            let error = pid(number, None, SignalTo::Leader).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
