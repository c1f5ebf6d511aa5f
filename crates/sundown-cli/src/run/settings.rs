//! How a service is guarded: from flags, and from `sundown.toml` where no flag says it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use serde::Deserialize;
use sundown_guard::{
    CommandHook, Guard, HookWhen, Mode, OnGuardDeath, Output, Passed, Surroundings,
};

use super::{Arguments, KEEPER, default_name};
use crate::signals::signal;
use crate::toml_file;

/// Where settings are looked for.
const FILE: &str = "sundown.toml";

/// What `--mode` can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModeName {
    Auto,
    Kernel,
    ListenFds,
}

impl FromStr for ModeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "kernel" => Ok(Self::Kernel),
            "listen-fds" => Ok(Self::ListenFds),
            _ => Err("give auto, kernel or listen-fds".to_owned()),
        }
    }
}

/// The file. Other tables are other commands'.
#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    run: Table,
}

/// The table `[run]`, key by key what the flags are.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Table {
    name: Option<String>,
    command: Option<Vec<String>>,
    cwd: Option<PathBuf>,
    env_file: Option<PathBuf>,
    mode: Option<String>,
    listen: Option<Vec<String>>,
    output: Option<String>,
    ready: Option<String>,
    ready_within: Option<String>,
    no_overlap: Option<bool>,
    restart: Option<String>,
    drain: Option<String>,
    quiet: Option<String>,
    stop_signal: Option<String>,
    pre_shutdown: Option<Vec<String>>,
    post_cleanup: Option<Vec<String>>,
    hook_timeout: Option<String>,
    on_guard_death: Option<String>,
    admin: Option<String>,
}

/// Settles how the service is guarded.
///
/// # Errors
/// In one line: what is wrong, and where.
pub(super) fn guard(flags: Arguments) -> anyhow::Result<Guard> {
    let Table {
        name,
        command,
        cwd,
        env_file,
        mode,
        listen,
        output,
        ready,
        ready_within,
        no_overlap,
        restart,
        drain,
        quiet,
        stop_signal,
        pre_shutdown,
        post_cleanup,
        hook_timeout,
        on_guard_death,
        admin,
    } = toml_file::settings::<File>(flags.config.as_deref(), FILE)?.run;
    let command = match flags.command.is_empty() {
        true => command
            .unwrap_or_default()
            .into_iter()
            .map(OsString::from)
            .collect(),
        false => flags.command,
    };
    ensure!(
        !command.is_empty(),
        "there is no command: give it behind --, as in `sundown run -- ./service`"
    );
    let listen = match flags.listen.is_empty() {
        true => read_all("listen", listen)?,
        false => flags.listen,
    };
    let seconds = Duration::from_secs;
    let hook_timeout =
        time(flags.hook_timeout, "hook-timeout", hook_timeout)?.unwrap_or(seconds(10));
    let commands = [
        (HookWhen::PreShutdown, flags.pre_shutdown, pre_shutdown),
        (HookWhen::PostCleanup, flags.post_cleanup, post_cleanup),
    ];
    let hooks = commands.into_iter().flat_map(|(when, flags, file)| {
        let commands = match flags.is_empty() {
            true => file.unwrap_or_default(),
            false => flags,
        };
        let hook = move |run| CommandHook {
            when,
            run,
            timeout: hook_timeout,
        };
        commands.into_iter().map(hook)
    });
    let name = read(flags.name, "name", name, super::name)?;
    let guard = Guard {
        // The very file that runs, also when another was put in its place.
        keeper: vec!["/proc/self/exe".into(), KEEPER.into()],
        name_is_given: name.is_some(),
        name: name.unwrap_or_else(|| default_name(Path::new(&command[0]))),
        command,
        surroundings: Surroundings {
            folder: flags.cwd.or(cwd),
            env_file: flags.env_file.or(env_file),
        },
        mode: self::mode(parse(flags.mode, "mode", mode)?, listen)?,
        ready: parse(flags.ready, "ready", ready)?.unwrap_or_default(),
        ready_within: time(flags.ready_within, "ready-within", ready_within)?
            .unwrap_or(seconds(60)),
        overlap: !(flags.no_overlap || no_overlap.unwrap_or(false)),
        restart: parse(flags.restart, "restart", restart)?.unwrap_or_default(),
        drain: time(flags.drain, "drain", drain)?.unwrap_or(seconds(30)),
        quiet: time(flags.quiet, "quiet", quiet)?.unwrap_or(seconds(5)),
        stop_signal: read(flags.stop_signal, "stop-signal", stop_signal, signal)?
            .unwrap_or(libc::SIGTERM),
        on_guard_death: parse(flags.on_guard_death, "on-guard-death", on_guard_death)?
            .unwrap_or_default(),
        output: parse(flags.output, "output", output)?.unwrap_or_default(),
        hooks: hooks.collect(),
        admin: flags.admin.or(admin),
    };
    ensure!(
        !(guard.output == Output::Json && guard.on_guard_death == OnGuardDeath::Keep),
        "what the application prints goes through the guard with output json, and it could not live \
         without it: leave on-guard-death at stop, or output at inherit"
    );
    Ok(guard)
}

fn mode(mode: Option<ModeName>, listen: Vec<Passed>) -> anyhow::Result<Mode> {
    match (mode.unwrap_or(ModeName::Auto), listen.is_empty()) {
        (ModeName::ListenFds, true) => Err(anyhow!(
            "listen-fds passes sockets: say which by --listen ADDRESS:PORT"
        )),
        (ModeName::Kernel, false) => Err(anyhow!(
            "sockets by --listen are passed: use --mode listen-fds, or leave --mode out"
        )),
        (_, false) => Ok(Mode::ListenFds(listen)),
        (ModeName::Kernel, true) => Ok(Mode::Kernel),
        (ModeName::Auto, true) => Ok(Mode::Auto),
    }
}

/// A flag, or else what the file says, or else nothing.
fn read<T>(
    flag: Option<T>,
    key: &str,
    text: Option<String>,
    how: impl Fn(&str) -> Result<T, String>,
) -> anyhow::Result<Option<T>> {
    match (flag, text) {
        (Some(flag), _) => Ok(Some(flag)),
        (None, Some(text)) => match how(&text) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(anyhow!("{key} = {text:?}: {error}")),
        },
        (None, None) => Ok(None),
    }
}

fn parse<T: FromStr<Err = String>>(
    flag: Option<T>,
    key: &str,
    text: Option<String>,
) -> anyhow::Result<Option<T>> {
    read(flag, key, text, str::parse)
}

fn read_all<T: FromStr<Err = String>>(
    key: &str,
    texts: Option<Vec<String>>,
) -> anyhow::Result<Vec<T>> {
    let texts = texts.into_iter().flatten();
    let values = texts.map(|text| Ok(parse(None, key, Some(text))?.expect("it was given")));
    values.collect()
}

fn time(
    flag: Option<Duration>,
    key: &str,
    text: Option<String>,
) -> anyhow::Result<Option<Duration>> {
    let how = |text: &str| humantime::parse_duration(text).map_err(|error| error.to_string());
    read(flag, key, text, how)
}
