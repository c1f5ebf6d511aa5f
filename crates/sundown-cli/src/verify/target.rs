//! Which thing is to be judged, from flags and the settings file.
//!
//! A target that flags name counts before the file's, as a whole: the file's `--stop` never stops
//! what a flag has named.

use std::ffi::OsString;

use anyhow::{Context, anyhow, bail};
use sundown_verify::process::SignalTo;
use sundown_verify::{Target, attach};

use super::Arguments;
use super::settings::{self, File};

/// A command in one argument, split as a shell would; no shell is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommandLine(pub(super) Vec<OsString>);

/// Reads a command.
pub(super) fn command_line(text: &str) -> Result<CommandLine, String> {
    let words = shlex::split(text).filter(|words| !words.is_empty());
    let words = words.ok_or("the command is empty, or a quote stays open")?;
    Ok(CommandLine(words.into_iter().map(OsString::from).collect()))
}

/// Where something is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    tls: bool,
    host: String,
    port: u16,
}

/// Reads `http://HOST:PORT` or `https://HOST:PORT`.
pub(super) fn url(text: &str) -> Result<Url, String> {
    let example = || "give http://HOST:PORT or https://HOST:PORT".to_owned();
    let (tls, rest) = match text.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("http://").ok_or_else(example)?),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains('/') {
        return Err("give scheme, host and port alone; --fast and others say the paths".to_owned());
    }
    // The colons of an IPv6 address stand in brackets.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| example())?),
        _ => (authority, if tls { 443 } else { 80 }),
    };
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    match host.is_empty() {
        true => Err(example()),
        false => Ok(Url { tls, host, port }),
    }
}

impl Url {
    /// Looks the host up; an IPv4 address counts first, as most services listen there.
    async fn resolve(&self) -> anyhow::Result<std::net::SocketAddr> {
        let Self { host, port, .. } = self;
        let found = tokio::net::lookup_host((host.as_str(), *port)).await;
        let found = found.with_context(|| format!("the host {host} of --url is not known"))?;
        let first = found.min_by_key(std::net::SocketAddr::is_ipv6);
        first.with_context(|| format!("the host {host} of --url has no address"))
    }
}

/// What is to be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    Command(Vec<OsString>),
    Pid {
        pid: u32,
        url: Option<Url>,
    },
    Unit {
        name: String,
        url: Option<Url>,
    },
    Url {
        url: Url,
        stop: CommandLine,
        again: Option<CommandLine>,
    },
}

/// All that names a target, in one place.
#[derive(Debug, Default, Clone)]
struct Given {
    command: Vec<OsString>,
    pid: Option<u32>,
    unit: Option<String>,
    url: Option<Url>,
    stop: Option<CommandLine>,
    again: Option<CommandLine>,
}

/// Says what is to be judged.
pub(super) fn choose(arguments: &Arguments, file: &File) -> anyhow::Result<Choice> {
    let flags = Given {
        command: arguments.command.clone(),
        pid: arguments.pid,
        unit: arguments.unit.clone(),
        url: arguments.url.clone(),
        stop: arguments.stop.clone(),
        again: arguments.again.clone(),
    };
    let choice = decide(flags, given(file)?)?;
    if !arguments.compare.is_empty() && !matches!(choice, Choice::Command(_)) {
        bail!("--compare needs a command to compare with: sundown verify --compare … -- CMD");
    }
    if settings::private_net(arguments, file)
        && let Some(flag) = choice.attaches_by()
    {
        bail!(
            "--private-net needs a command to start in it: what {flag} names has a network already"
        );
    }
    if arguments.runs > 1
        && let Some(advice) = choice.runs_once()
    {
        bail!(
            "--runs {} needs a start for each run: {advice}",
            arguments.runs
        );
    }
    Ok(choice)
}

fn given(file: &File) -> anyhow::Result<Given> {
    let line = |key: &str, text: &Option<String>| {
        let line = text.as_deref().map(command_line).transpose();
        line.map_err(|error| anyhow!("{key} = {text:?}: {error}"))
    };
    let address = file.url.as_deref().map(url).transpose();
    Ok(Given {
        unit: file.unit.clone(),
        url: address.map_err(|error| anyhow!("url = {:?}: {error}", file.url))?,
        stop: line("stop", &file.stop)?,
        again: line("again", &file.again)?,
        ..Given::default()
    })
}

fn decide(flags: Given, file: Given) -> anyhow::Result<Choice> {
    let names_one = !flags.command.is_empty() || flags.pid.is_some() || flags.unit.is_some();
    let given = match names_one || flags.stop.is_some() {
        true => flags,
        false => Given {
            url: flags.url.or(file.url),
            again: flags.again.or(file.again),
            ..file
        },
    };
    match given {
        Given { command, .. } if !command.is_empty() => Ok(Choice::Command(command)),
        Given {
            pid: Some(pid),
            url,
            ..
        } => Ok(Choice::Pid { pid, url }),
        Given {
            unit: Some(_),
            stop: Some(_),
            ..
        } => bail!("a unit is stopped by systemd: give unit or stop, and not both"),
        Given {
            unit: Some(name),
            url,
            ..
        } => Ok(Choice::Unit { name, url }),
        Given {
            url: Some(url),
            stop: Some(stop),
            again,
            ..
        } => Ok(Choice::Url { url, stop, again }),
        Given { url: Some(_), .. } => bail!(
            "--url needs to know how it is stopped: give --stop CMD beside it, or --pid, or --unit"
        ),
        Given { stop: Some(_), .. } => {
            bail!("--stop needs to know where it is reached: give --url http://HOST:PORT beside it")
        }
        Given { .. } => bail!(
            "no command was given; say how to start the service: sundown verify -- ./server {{port}}"
        ),
    }
}

impl Choice {
    /// What to give instead, where it can be stopped only once.
    fn runs_once(&self) -> Option<&'static str> {
        match self {
            Self::Pid { .. } => Some("give the command instead of --pid"),
            Self::Url { again: None, .. } => Some("say how to start it again, by --again CMD"),
            Self::Command(_) | Self::Unit { .. } | Self::Url { .. } => None,
        }
    }

    /// Tells whether it is reached by an address that says so.
    pub(super) fn speaks_tls(&self) -> bool {
        match self {
            Self::Pid { url, .. } | Self::Unit { url, .. } => {
                url.as_ref().is_some_and(|url| url.tls)
            }
            Self::Url { url, .. } => url.tls,
            Self::Command(_) => false,
        }
    }

    /// The flag that names what runs already.
    fn attaches_by(&self) -> Option<&'static str> {
        match self {
            Self::Command(_) => None,
            Self::Pid { .. } => Some("--pid"),
            Self::Unit { .. } => Some("--unit"),
            Self::Url { .. } => Some("--url"),
        }
    }

    /// Finds what runs already.
    pub(super) async fn attach(self, to: SignalTo) -> anyhow::Result<Target> {
        let resolved = |url: Option<Url>| async move {
            match url {
                Some(url) => url.resolve().await.map(Some),
                None => Ok(None),
            }
        };
        Ok(match self {
            Self::Command(command) => Target::Command(command),
            Self::Pid { pid, url } => attach::pid(pid, resolved(url).await?, to).await?,
            Self::Unit { name, url } => attach::unit(&name, resolved(url).await?).await?,
            Self::Url { url, stop, again } => {
                let again = again.map(|again| again.0);
                attach::url(url.resolve().await?, stop.0, again).await?
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(String, u16)> {
        url(text).ok().map(|url| (url.host, url.port))
    }

    #[test]
    fn an_address_is_read_with_and_without_a_port() {
        let found = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(read("http://127.0.0.1:8080"), found("127.0.0.1", 8080));
        assert_eq!(read("http://app.local/"), found("app.local", 80));
        assert_eq!(read("http://[::1]:81"), found("::1", 81));
        assert_eq!(read("http://[::1]"), found("::1", 80));
        assert_eq!(read("https://a"), found("a", 443));
        assert!(url("https://a:1").unwrap().tls && !url("http://a:1").unwrap().tls);
        for text in [
            "",
            "127.0.0.1:80",
            "ftp://a",
            "http://",
            "http://a:b",
            "http://a/b",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    fn addressed(port: u16, stop: Option<&str>) -> Given {
        Given {
            url: Some(url(&format!("http://a:{port}")).unwrap()),
            stop: stop.map(|stop| command_line(stop).unwrap()),
            ..Given::default()
        }
    }

    #[test]
    fn what_flags_name_counts_before_the_file_and_as_a_whole() {
        let unit = |name: &str| Given {
            unit: Some(name.to_owned()),
            ..Given::default()
        };
        let pid = Given {
            pid: Some(7),
            ..Given::default()
        };
        let file = || addressed(1, Some("stop it"));
        let chosen = |flags, file| decide(flags, file).map_err(|error| error.to_string());
        let own = chosen(pid, file()).unwrap();
        assert_eq!(own, Choice::Pid { pid: 7, url: None });
        let own = chosen(unit("web"), file()).unwrap();
        assert!(matches!(own, Choice::Unit { url: None, .. }), "{own:?}");
        let Choice::Url { url, .. } = chosen(addressed(2, None), file()).unwrap() else {
            panic!("the file says how it is stopped");
        };
        assert_eq!(url.port, 2);
        assert!(chosen(addressed(1, None), Given::default()).is_err());
        let both = Given {
            unit: Some("web".to_owned()),
            ..file()
        };
        assert!(chosen(Given::default(), both).is_err());
        assert!(chosen(Given::default(), Given::default()).is_err());
    }
}
