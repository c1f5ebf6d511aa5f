//! Opens listening sockets, or takes those that the supervisor passed on.
//!
//! Binds first and listens later: a taken port is found before any start hook runs, and nobody
//! connects before there is somebody to answer.

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, Socket, Type};

use super::diag;
use super::unix::{self, UnixFile};
use crate::error::Error;

/// What the path of a Unix socket stands behind.
const UNIX: &str = "unix:";

/// How many connections may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Where a listener listens.
///
/// From `"127.0.0.1:8080"`, `"[::]:8080"` (IPv6 and IPv4 at once), `":8080"` (the same),
/// `"localhost:8080"`, a [`SocketAddr`], a bound [`TcpListener`], or the path of a Unix socket behind `unix:`,
/// as in `"unix:/run/shop.sock"`. A file that a dead process has left there is replaced.
#[derive(Debug)]
pub struct Address(Kind);

#[derive(Debug)]
enum Kind {
    Text(String),
    Socket(SocketAddr),
    Bound(TcpListener),
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        Self(Kind::Text(text.to_owned()))
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        Self(Kind::Text(text))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self(Kind::Socket(address))
    }
}

impl From<TcpListener> for Address {
    fn from(listener: TcpListener) -> Self {
        Self(Kind::Bound(listener))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Text(text) => f.write_str(text),
            Kind::Socket(address) => address.fmt(f),
            Kind::Bound(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("a bound socket"),
            },
        }
    }
}

impl Address {
    /// Looks a host's name up; an address without a host is on `host`.
    ///
    /// # Errors
    /// [`Error::Address`] for an address nobody can understand.
    pub(crate) fn resolve(self, listener: &str, host: &str) -> Result<Self, Error> {
        match self.0 {
            Kind::Text(given) if !given.starts_with(UNIX) => {
                resolve(listener, &given, host).map(Self::from)
            }
            kind => Ok(Self(kind)),
        }
    }

    /// The address, as far as it is known before anything is bound.
    pub(crate) fn known(&self) -> Option<LocalAddress> {
        match &self.0 {
            Kind::Text(given) => {
                let path = given.strip_prefix(UNIX)?;
                Some(LocalAddress::Unix(path.into()))
            }
            Kind::Socket(address) => Some(LocalAddress::Tcp(*address)),
            Kind::Bound(listener) => listener.local_addr().ok().map(LocalAddress::Tcp),
        }
    }
}

/// A socket that has its address, and whether its queue belongs to somebody else too.
#[derive(Debug)]
pub(crate) struct Bound {
    socket: Socket,
    pub(crate) shared: bool,
    listening: bool,
    /// What a Unix socket has made.
    file: Option<UnixFile>,
}

/// A socket that listens.
#[derive(Debug)]
pub(crate) enum Open {
    Tcp(TcpListener),
    Unix(UnixListener, Option<UnixFile>),
}

impl Open {
    /// Another descriptor for somebody who keeps the listener beyond our end, with its file.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Self::Unix(listener, file) => {
                let shared = listener.as_fd().try_clone_to_owned()?;
                if let Some(file) = file {
                    file.leave();
                }
                Ok(shared)
            }
        }
    }
}

impl Bound {
    pub(crate) fn address(&self) -> io::Result<LocalAddress> {
        LocalAddress::of(&self.socket)
    }

    /// Begins to listen, if it does not yet.
    pub(crate) fn listen(self) -> io::Result<Open> {
        if !self.listening {
            self.socket.listen(BACKLOG)?;
        }
        self.socket.set_nonblocking(true)?;
        Ok(match self.address()? {
            LocalAddress::Tcp(_) => Open::Tcp(self.socket.into()),
            LocalAddress::Unix(_) => Open::Unix(OwnedFd::from(self.socket).into(), self.file),
        })
    }
}

/// Where a listener listens, as the system says. In JSON it is what it is in text: `127.0.0.1:8080`, or
/// `unix:/run/shop.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocalAddress {
    /// An address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket; empty where it has none.
    Unix(PathBuf),
}

impl LocalAddress {
    pub(super) fn of(socket: &Socket) -> io::Result<Self> {
        let address = socket.local_addr()?;
        match address.as_socket() {
            Some(address) => Ok(Self::Tcp(address)),
            None if address.is_unix() => Ok(Self::Unix(
                address
                    .as_pathname()
                    .map(Path::to_owned)
                    .unwrap_or_default(),
            )),
            None => Err(io::Error::other("neither TCP nor a Unix socket")),
        }
    }

    /// How many of the kernel's handshakes are under way; `None` where it cannot be asked.
    pub(super) fn handshakes(&self) -> Option<usize> {
        match self {
            Self::Tcp(address) => diag::handshakes(*address),
            Self::Unix(_) => Some(0),
        }
    }
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl serde::Serialize for LocalAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Opens the socket of the listener `name`, or takes the passed one.
///
/// # Errors
/// [`Error::Address`] for an address nobody can understand, [`Error::Bind`] for what the system
/// says.
pub(crate) fn bind(
    name: &str,
    address: Address,
    mode: u32,
    passed: &mut Passed,
) -> Result<Bound, Error> {
    let text = address.to_string();
    let refused = |source| Error::Bind {
        listener: name.to_owned(),
        address: text.clone(),
        source,
    };
    if let Some(given) = passed.take(name) {
        return given.bound().map_err(refused);
    }
    let address = match address.0 {
        Kind::Bound(listener) => {
            return Ok(Bound {
                socket: listener.into(),
                shared: false,
                listening: true,
                file: None,
            });
        }
        Kind::Socket(address) => address,
        Kind::Text(given) if given.starts_with(UNIX) => {
            let path = Path::new(&given[UNIX.len()..]);
            let (socket, file) = unix::bind(path, mode).map_err(refused)?;
            return Ok(Bound {
                socket,
                shared: false,
                listening: false,
                file: Some(file),
            });
        }
        Kind::Text(given) => resolve(name, &given, "[::]")?,
    };
    open(address).map_err(refused)
}

fn open(address: SocketAddr) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != Ipv6Addr::UNSPECIFIED)?;
    }
    socket.bind(&address.into())?;
    // SO_REUSEADDR lets a bind pass beside one that is bound but not listening yet; such a rival
    // is found by `listen`.
    Ok(Bound {
        socket,
        shared: false,
        listening: false,
        file: None,
    })
}

fn resolve(listener: &str, given: &str, host: &str) -> Result<SocketAddr, Error> {
    let text = match given.strip_prefix(':') {
        Some(port) => format!("{host}:{port}"),
        None => given.to_owned(),
    };
    let unusable = || Error::Address {
        listener: listener.to_owned(),
        address: given.to_owned(),
    };
    text.to_socket_addrs()
        .ok()
        .and_then(|mut all| all.next())
        .ok_or_else(unusable)
}

/// Sockets passed by LISTEN_FDS (sd_listen_fds(3)), or by the process that this one follows.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    given: Vec<Given>,
    taken: Vec<String>,
}

/// A socket that somebody else has bound.
#[derive(Debug)]
struct Given {
    name: Option<String>,
    socket: OwnedFd,
    /// Whether its queue belongs to somebody else, too.
    shared: bool,
    /// Whether the file of a Unix socket is ours from now on.
    file: bool,
}

impl Given {
    fn bound(self) -> io::Result<Bound> {
        let socket = Socket::from(self.socket);
        let file = match LocalAddress::of(&socket)? {
            LocalAddress::Unix(path) if self.file => Some(UnixFile::adopt(&path)?),
            _ => None,
        };
        Ok(Bound {
            socket,
            shared: self.shared,
            listening: true,
            file,
        })
    }
}

/// The names of passed sockets, as many as are asked for.
fn names_of(names: &str) -> impl Iterator<Item = Option<String>> {
    let given = names.split(':').map(|name| Some(name.to_owned()));
    let given = given.map(|name| name.filter(|name| !name.is_empty()));
    given.chain(std::iter::repeat(None))
}

impl Passed {
    /// Takes what the environment passes to this process.
    pub(crate) fn from_environment() -> Self {
        Self::receive().unwrap_or_default()
    }

    fn receive() -> Option<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let fds = sd_notify::listen_fds().ok()?;
        let given = fds.zip(names_of(&names)).map(|(fd, name)| Given {
            name,
            socket: crate::sys::own_passed_fd(fd),
            shared: true,
            file: false,
        });
        Some(Self {
            given: given.collect(),
            taken: Vec::new(),
        })
    }

    /// What the process before this one hands over: name, socket, whether it is shared, and whether the file
    /// of a Unix socket goes with it.
    pub(crate) fn handed_over(given: Vec<(String, OwnedFd, bool, bool)>) -> Self {
        let given = given.into_iter().map(|(name, socket, shared, file)| Given {
            name: Some(name),
            socket,
            shared,
            file,
        });
        Self {
            given: given.collect(),
            taken: Vec::new(),
        }
    }

    /// The names of the listeners that have got theirs.
    pub(crate) fn into_taken(self) -> Vec<String> {
        self.taken
    }

    /// The socket of that name; where no name matches any listener, the next in order that has
    /// no name of its own choosing (systemd calls those after the unit, or `unknown`).
    fn take(&mut self, name: &str) -> Option<Given> {
        let is_generic = |given: &Option<String>| {
            given
                .as_ref()
                .is_none_or(|given| given == "unknown" || given.ends_with(".socket"))
        };
        let by_name = self
            .given
            .iter()
            .position(|given| given.name.as_deref() == Some(name));
        let generic = || self.given.iter().position(|given| is_generic(&given.name));
        let index = by_name.or_else(generic)?;
        self.taken.push(name.to_owned());
        Some(self.given.remove(index))
    }
}

/// See `crate::fuzzing`.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (names, wanted) = text.split_once('\0').unwrap_or((&text, "public"));
    let given = names_of(names).take(8).map(|name| Given {
        name,
        socket: std::fs::File::open("/dev/null")
            .expect("it is there")
            .into(),
        shared: true,
        file: false,
    });
    let mut passed = Passed {
        given: given.collect(),
        taken: Vec::new(),
    };
    let is_named = |given: &Given| given.name.as_deref() == Some(wanted);
    let named = passed.given.iter().any(is_named);
    let taken = passed.take(wanted);
    assert!(!named || taken.is_some_and(|taken| is_named(&taken)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood_or_named() {
        let table = [
            ("127.0.0.1:80", Some("127.0.0.1:80")),
            ("[::1]:80", Some("[::1]:80")),
            (":80", Some("[::]:80")),
            ("localhost:0", None),
        ];
        for (given, expected) in table {
            let address = resolve("http", given, "[::]").unwrap();
            if let Some(expected) = expected {
                assert_eq!(address.to_string(), expected);
            }
        }
        for given in [
            "",
            "80",
            "127.0.0.1",
            "127.0.0.1:http",
            "127.0.0.1:70000",
            "[::1:80",
        ] {
            let error = resolve("public", given, "[::]").unwrap_err();
            assert_eq!(error.exit_status().code(), 2);
            assert!(error.to_string().contains("public"), "{error}");
        }
    }

    #[test]
    fn a_wildcard_ipv6_listener_hears_ipv4_too() {
        let bound = open("[::]:0".parse().unwrap()).unwrap();
        let LocalAddress::Tcp(address) = bound.address().unwrap() else {
            panic!("not of TCP");
        };
        let port = address.port();
        let listener = bound.listen().unwrap();
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        drop(listener);
    }

    #[test]
    fn passed_sockets_go_by_name_and_then_in_order() {
        let fd = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let passed = |names: &[Option<&str>]| {
            let given = names.iter().map(|name| Given {
                name: name.map(str::to_owned),
                socket: fd(),
                shared: true,
                file: false,
            });
            Passed {
                given: given.collect(),
                taken: Vec::new(),
            }
        };
        let mut others = passed(&[Some("metrics")]);
        assert!(others.take("public").is_none());
        let mut passed = passed(&[Some("shop.socket"), Some("admin"), None]);
        assert!(passed.take("admin").is_some());
        assert!(passed.take("public").is_some());
        assert!(passed.take("other").is_some());
        assert!(passed.take("none-left").is_none());
        assert_eq!(passed.into_taken(), ["admin", "public", "other"]);
    }
}
