//! What can be set of a guard, and the names that people give it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How the guard gets hold of the application's listeners.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Mode {
    /// [`Kernel`](Self::Kernel) where that is possible; where it is not, signals alone, and the log says why.
    #[default]
    Auto,
    /// The kernel tells of each socket that begins to listen (seccomp_unotify(2)); where it does not, nothing
    /// is started.
    Kernel,
    /// The guard opens these and passes them, as systemd does (sd_listen_fds(3)): for an application that takes
    /// them.
    ListenFds(Vec<Passed>),
}

/// A socket that is passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// What LISTEN_FDNAMES calls it.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Reads `ADDRESS` or `NAME=ADDRESS`, as in `http=0.0.0.0:8080`.
impl FromStr for Passed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = text.split_once('=').unwrap_or(("http", text));
        let named = !name.is_empty() && name.len() <= 255;
        // LISTEN_FDNAMES separates them by colons.
        let plain = name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b':');
        let address = address.parse().ok().filter(|_| named && plain);
        address
            .map(|address| Self {
                name: name.to_owned(),
                address,
            })
            .ok_or_else(|| "give ADDRESS:PORT or NAME=ADDRESS:PORT".to_owned())
    }
}

/// When a generation counts as ready.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Ready {
    /// It listens where the one before does. Of sockets that are passed it is [`Tcp`](Self::Tcp).
    #[default]
    Listen,
    /// It has accepted a connection of the guard's at each of its addresses.
    Tcp,
    /// It answers a GET of the guard's by 200 to 399.
    Url(Url),
    /// It says so (READY=1, sd_notify(3)).
    Notify,
}

/// What is asked whether a generation is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Of the listener.
    pub port: u16,
    /// What the request's Host says.
    pub host: String,
    /// Path and query.
    pub path: String,
}

/// Reads `listen`, `tcp`, `notify`, or a URL such as `http://localhost:8080/healthz`.
impl FromStr for Ready {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "listen" => return Ok(Self::Listen),
            "tcp" => return Ok(Self::Tcp),
            "notify" => return Ok(Self::Notify),
            _ => {}
        }
        let help = || {
            "give listen, tcp, notify, or a URL of one of its own ports, such as http://localhost:8080/healthz"
                .to_owned()
        };
        let uri: http::Uri = text.parse().map_err(|_| help())?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
        let authority = authority.ok_or_else(help)?;
        Ok(Self::Url(Url {
            port: authority.port_u16().unwrap_or(80),
            host: authority.as_str().to_owned(),
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
        }))
    }
}

/// When an application that ends by itself is started again. One that has never listened never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restart {
    /// Never.
    No,
    /// If it ends with another exit code than 0, or by a signal.
    #[default]
    OnFailure,
    /// However it ends.
    Always,
}

impl FromStr for Restart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "no" => Ok(Self::No),
            "on-failure" => Ok(Self::OnFailure),
            "always" => Ok(Self::Always),
            _ => Err("give no, on-failure or always".to_owned()),
        }
    }
}

/// What becomes of the application if the guard is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum OnGuardDeath {
    /// It is told to stop, and killed ten seconds later.
    #[default]
    Stop,
    /// It runs on; nobody guards it any more.
    Keep,
}

impl OnGuardDeath {
    /// `stop` or `keep`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Keep => "keep",
        }
    }
}

impl FromStr for OnGuardDeath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Stop, Self::Keep]
            .into_iter()
            .find(|setting| setting.name() == text)
            .ok_or_else(|| "give stop or keep".to_owned())
    }
}

/// What becomes of what the application prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// It goes where the guard's own output goes.
    #[default]
    Inherit,
    /// Each line becomes a JSON object on stdout, with its time, its generation and whether it was on stdout or
    /// stderr.
    Json,
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "inherit" => Ok(Self::Inherit),
            "json" => Ok(Self::Json),
            _ => Err("give inherit or json".to_owned()),
        }
    }
}

/// A command that is run at a point of the service's life, by `/bin/sh -c`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandHook {
    /// At which.
    pub when: HookWhen,
    /// What the shell runs.
    pub run: String,
    /// Then it is killed.
    pub timeout: Duration,
}

/// When a command is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookWhen {
    /// When a stop has begun, before the application is told.
    PreShutdown,
    /// When the application has ended.
    PostCleanup,
}

/// How the application is started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Where; the guard's own folder if not given.
    pub folder: Option<PathBuf>,
    /// A file of lines `NAME=VALUE`, which each generation reads anew.
    pub env_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_read_from_its_name_or_url() {
        let url = |port, host: &str, path: &str| {
            let (host, path) = (host.to_owned(), path.to_owned());
            Ok(Ready::Url(Url { port, host, path }))
        };
        let table = [
            ("listen", Ok(Ready::Listen)),
            ("tcp", Ok(Ready::Tcp)),
            ("notify", Ok(Ready::Notify)),
            (
                "http://localhost:8080/up?now",
                url(8080, "localhost:8080", "/up?now"),
            ),
            ("http://[::1]", url(80, "[::1]", "/")),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse(), expected, "{text}");
        }
        for text in [
            "",
            "https://localhost/",
            "/healthz",
            "localhost:80",
            "http://",
        ] {
            assert!(text.parse::<Ready>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_passed_socket_may_have_a_name() {
        let passed = |name: &str| {
            let address = "127.0.0.1:80".parse().unwrap();
            Ok(Passed {
                name: name.to_owned(),
                address,
            })
        };
        assert_eq!("127.0.0.1:80".parse(), passed("http"));
        assert_eq!("web=127.0.0.1:80".parse(), passed("web"));
        for text in ["", "80", "a:b=127.0.0.1:80", "=127.0.0.1:80", "web="] {
            assert!(text.parse::<Passed>().is_err(), "{text}");
        }
    }
}
