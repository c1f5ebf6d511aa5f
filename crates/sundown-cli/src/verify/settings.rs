//! What is asked of a service, from flags, the environment and `sundown.verify.toml`.
//!
//! A flag or a variable counts before the file, and the file before the default.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use serde::Deserialize;
use sundown_verify::service::{Declared, ID, Ledger};
use sundown_verify::{Offers, Service, Target};

use super::target::{CommandLine, command_line};
use super::{Arguments, Second};
use crate::toml_file;

/// Read when it is there and no other file is named.
pub(super) const FILE: &str = "sundown.verify.toml";

/// The file, key by key what the flags are.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct File {
    fast: Option<String>,
    slow: Option<String>,
    big: Option<String>,
    upload: Option<String>,
    endless: Option<String>,
    stream: Option<String>,
    sse: Option<String>,
    ws: Option<String>,
    ready: Option<String>,
    live: Option<String>,
    ledger: Option<String>,
    ledger_body: Option<String>,
    ledger_read: Option<String>,
    invariant: Option<String>,
    restart: Option<String>,
    grpc: Option<String>,
    http2: Option<bool>,
    no_http1: Option<bool>,
    tls: Option<bool>,
    signal: Option<String>,
    exit_code: Option<Vec<u8>>,
    second_signal: Option<Second>,
    grace: Option<String>,
    lame_duck: Option<String>,
    start: Option<String>,
    private_net: Option<bool>,
    pub(super) unit: Option<String>,
    pub(super) url: Option<String>,
    pub(super) stop: Option<String>,
    pub(super) again: Option<String>,
}

/// Describes the service that this target is.
pub(super) fn service(
    arguments: &Arguments,
    file: File,
    target: Target,
) -> anyhow::Result<Service> {
    let flags = arguments;
    let ledger = ledger(flags, &file)?;
    let restart = words(flags.restart.as_ref(), "restart", file.restart.as_deref())?;
    let time = |flag: Option<Duration>, key: &str, text: Option<String>, usual: u64| match text {
        Some(text) if flag.is_none() => {
            duration(&text).map_err(|error| anyhow!("{key} = {text:?}: {error}"))
        }
        _ => Ok(flag.unwrap_or(Duration::from_secs(usual))),
    };
    let by_file = file
        .signal
        .as_deref()
        .map(crate::signals::signal)
        .transpose();
    let by_file = by_file
        .map_err(|error| anyhow!("signal = {:?}: {error}", file.signal.unwrap_or_default()))?;
    let usual = match &target {
        Target::Unit(unit) => unit.kill_signal,
        _ => libc::SIGTERM,
    };
    Ok(Service {
        target,
        offers: Offers {
            fast: flags
                .fast
                .clone()
                .or(file.fast)
                .unwrap_or_else(|| "/".to_owned()),
            slow: flags.slow.clone().or(file.slow),
            big: flags.big.clone().or(file.big),
            upload: flags.upload.clone().or(file.upload),
            endless: flags.endless.clone().or(file.endless),
            stream: flags.stream.clone().or(file.stream),
            sse: flags.sse.clone().or(file.sse),
            ws: flags.ws.clone().or(file.ws),
            ready: flags.ready.clone().or(file.ready),
            live: flags.live.clone().or(file.live),
            lame_duck: time(flags.lame_duck, "lame-duck", file.lame_duck, 0)?,
            ledger,
            restart,
            grpc: flags.grpc.clone().or(file.grpc),
            http2: flags.http2 || file.http2.unwrap_or(false),
            no_http1: flags.no_http1 || file.no_http1.unwrap_or(false),
            tls: flags.tls || file.tls.unwrap_or(false),
        },
        signal: flags.signal.or(by_file).unwrap_or(usual),
        signal_to: flags.signal_to.into(),
        declared: Declared {
            exit_codes: match flags.exit_code.is_empty() {
                true => file
                    .exit_code
                    .unwrap_or_default()
                    .into_iter()
                    .map(i32::from)
                    .collect(),
                false => flags.exit_code.clone(),
            },
            second_signal: flags.second_signal.or(file.second_signal).map(Into::into),
        },
        grace: time(flags.grace, "grace", file.grace, 10)?,
        start_limit: time(flags.start, "start", file.start, 30)?,
    })
}

/// What is stored, and a way to see it: the one is nothing without the other.
fn ledger(flags: &Arguments, file: &File) -> anyhow::Result<Option<Ledger>> {
    let either = |flag: &Option<String>, file: &Option<String>| flag.clone().or(file.clone());
    let read = either(&flags.ledger_read, &file.ledger_read);
    let invariant = words(
        flags.invariant.as_ref(),
        "invariant",
        file.invariant.as_deref(),
    )?;
    let seen = read.is_some() || invariant.is_some();
    let Some(post) = either(&flags.ledger, &file.ledger) else {
        ensure!(
            !seen,
            "--ledger-read and --invariant need --ledger PATH, which stores what is posted to it"
        );
        return Ok(None);
    };
    ensure!(
        seen,
        "--ledger needs a way to see what was stored: --ledger-read PATH or --invariant CMD"
    );
    let body = either(&flags.ledger_body, &file.ledger_body);
    let body = body.unwrap_or_else(|| format!("{{\"id\":\"{ID}\"}}"));
    ensure!(
        post.contains(ID) || body.contains(ID),
        "neither the target nor the body of --ledger has {ID}, by which an entry is known"
    );
    Ok(Some(Ledger {
        post,
        body,
        read,
        invariant,
    }))
}

/// A command by a flag, or else by the file.
fn words(
    flag: Option<&CommandLine>,
    key: &str,
    text: Option<&str>,
) -> anyhow::Result<Option<Vec<OsString>>> {
    let by_file = || text.map(command_line).transpose();
    let line = match flag {
        Some(line) => Some(line.clone()),
        None => by_file().map_err(|error| anyhow!("{key}: {error}"))?,
    };
    Ok(line.map(|CommandLine(words)| words))
}

/// Tells whether the service is to have a network of its own.
pub(super) fn private_net(flags: &Arguments, file: &File) -> bool {
    flags.private_net || file.private_net.unwrap_or(false)
}

impl File {
    /// Reads the file that is named, or that is there.
    pub(super) fn of(arguments: &Arguments) -> anyhow::Result<Self> {
        toml_file::settings(arguments.config.as_deref(), FILE)
    }
}

/// Reads the path of a gRPC method.
pub(super) fn method(text: &str) -> Result<String, String> {
    let named = text.strip_prefix('/').and_then(|rest| rest.split_once('/'));
    match named {
        Some((service, method)) if !service.is_empty() && !method.is_empty() => Ok(text.to_owned()),
        _ => Err("give /PACKAGE.SERVICE/METHOD, such as /grpc.health.v1.Health/Watch".to_owned()),
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}
