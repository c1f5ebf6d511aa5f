//! Carries a service through its phases on the runtime: starts, serves, and follows the stop.
//!
//! Decides nothing about stopping: it watches the phase and tells `control` when a step is done.

use std::future::Future;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

#[cfg(feature = "tls")]
use crate::app::Listener;
use crate::app::Parts;
use crate::core::{Core, lock};
use crate::error::{BoxError, Error};
use crate::hooks::{Hook, Hooks, run_all, run_start};
use crate::lifecycle::{Event, Phase, Reason};
use crate::report::{HookOutcome, ListenerStop};
use crate::serve::{self, Bound, Limits, Listening, LocalAddress, Serve};
use crate::stderr;
use crate::systemd::Said;
#[cfg(feature = "tls")]
use crate::tls::Certificates;
use crate::worker::{self, Worker};

/// Lives from the first hook to the last. `prepare` makes the parts, on the runtime.
pub(crate) async fn live(
    core: Arc<Core>,
    prepare: impl Future<Output = Result<Parts, Error>> + Send,
) {
    let reaper = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(serve::reap(core.clone())));
    let _watchdog = core.manager.watchdog().map(|every| {
        let core = core.clone();
        tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
            let mut due = tokio::time::interval(every);
            due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                due.tick().await;
                core.manager.tell(Said::Alive);
            }
        }))
    });
    let mut releases = Releases::default();
    let started = tokio::select! {
        biased;
        () = core.abandon.cancelled() => Err(None),
        started = start(&core, prepare, &mut releases) => started.map_err(Some),
    };
    match started {
        Ok(pre_shutdown) => {
            core.link.send(Event::Started);
            drain(&core, pre_shutdown).await;
        }
        Err(failure) => tell_not_started(&core, failure),
    }
    core.reached(Phase::Releasing).await;
    let releases = releases.due();
    if let Some(times) = core.stop_times() {
        let margin = END_MARGIN.min(core.budget.release / 4);
        // A hurried stop has moved the end already; nothing hurries releases beyond that.
        let nothing_hurries = CancellationToken::new();
        let reports = run_all(releases, times.schedule.end - margin, &nothing_hurries).await;
        core.findings().hooks.extend(reports);
    }
    drop(reaper);
    core.link.send(Event::Released);
}

/// Kept of the release share for ending in order rather than by the deadline.
const END_MARGIN: std::time::Duration = std::time::Duration::from_millis(100);

/// The release hooks, and which start hooks have made them due.
#[derive(Default)]
struct Releases {
    hooks: Vec<Hook>,
    /// Start hooks that have not succeeded: releases of the same name have nothing to release.
    not_started: Vec<String>,
}

impl Releases {
    fn due(self) -> Vec<Hook> {
        let Self { hooks, not_started } = self;
        hooks
            .into_iter()
            .filter(|hook| !not_started.contains(&hook.name))
            .collect()
    }
}

async fn start(
    core: &Arc<Core>,
    prepare: impl Future<Output = Result<Parts, Error>> + Send,
    releases: &mut Releases,
) -> Result<Vec<Hook>, Error> {
    let Parts {
        name,
        listeners,
        workers,
        hooks,
        stops,
    } = prepare.await?;
    if listeners.is_empty() && workers.is_empty() {
        return Err(Error::Nothing(name));
    }
    let mut passed = serve::Passed::from_environment();
    let mut bound = Vec::new();
    #[cfg(feature = "tls")]
    let mut certificates = load_certificates(&listeners)?.into_iter();
    for listener in listeners {
        let socket = serve::bind(&listener.name, listener.address, listener.mode, &mut passed)?;
        #[cfg(feature = "tls")]
        if listener.tls.is_some() && matches!(socket.address(), Ok(LocalAddress::Unix(_))) {
            return Err(Error::Tls {
                listener: listener.name,
                problem: "no TLS on a Unix socket; serve it in plain, or on a port".to_owned(),
            });
        }
        bound.push(Waiting {
            name: listener.name,
            socket,
            limits: listener.limits,
            #[cfg(feature = "tls")]
            tls: certificates.next().flatten(),
            serve: listener.serve,
        });
    }
    let Hooks {
        start,
        pre_shutdown,
        post_cleanup,
    } = Hooks::arrange(hooks)?;
    releases.not_started = start.iter().map(|hook| hook.name.clone()).collect();
    releases.hooks = post_cleanup;
    for hook in start {
        run_start_hook(core, hook, releases).await?;
    }
    open(core, bound, workers)?;
    for stop in stops {
        let link = core.link.clone();
        tokio::spawn(async move {
            stop.await;
            link.send(Event::Stop(Reason::Future));
        });
    }
    Ok(pre_shutdown)
}

/// Before anything is bound: what cannot be used is a wrong setting.
#[cfg(feature = "tls")]
fn load_certificates(listeners: &[Listener]) -> Result<Vec<Option<Arc<Certificates>>>, Error> {
    let load = |listener: &Listener| {
        let loaded = listener.tls.clone().map(Certificates::load).transpose();
        let loaded = loaded.map_err(|error| Error::Tls {
            listener: listener.name.clone(),
            problem: error.to_string(),
        })?;
        Ok(loaded.map(Arc::new))
    };
    listeners.iter().map(load).collect()
}

async fn run_start_hook(core: &Core, hook: Hook, releases: &mut Releases) -> Result<(), Error> {
    let report = run_start(hook).await;
    let (name, outcome) = (report.name.clone(), report.outcome.clone());
    core.findings().hooks.push(report);
    let source: BoxError = match outcome {
        HookOutcome::Done => {
            releases.not_started.retain(|other| *other != name);
            return Ok(());
        }
        HookOutcome::Failed(error) => error.into(),
        HookOutcome::Panicked(message) => format!("it panicked: {message}").into(),
        HookOutcome::TimedOut => "its time was over".into(),
    };
    Err(Error::Start { hook: name, source })
}

struct Waiting {
    name: String,
    socket: Bound,
    limits: Limits,
    #[cfg(feature = "tls")]
    tls: Option<Arc<Certificates>>,
    serve: Serve,
}

/// Listens on everything, then serves everything: when one listener fails, nothing was accepted.
fn open(core: &Arc<Core>, bound: Vec<Waiting>, workers: Vec<Worker>) -> Result<(), Error> {
    let mut ready: Vec<(Listening, Serve)> = Vec::new();
    for Waiting {
        name,
        socket,
        limits,
        #[cfg(feature = "tls")]
        tls,
        serve,
    } in bound
    {
        let shared = socket.shared;
        let refused = |address: String| {
            let listener = name.clone();
            move |source| Error::Bind {
                listener,
                address,
                source,
            }
        };
        let address = socket
            .address()
            .map_err(refused("its address".to_owned()))?;
        let listener = socket.listen().map_err(refused(address.to_string()))?;
        ready.push((
            Listening {
                name,
                address,
                listener,
                shared,
                limits,
                #[cfg(feature = "tls")]
                tls,
            },
            serve,
        ));
    }
    announce(core, &ready);
    let nothing_else = ready.is_empty();
    for (listening, serve) in ready {
        tokio::spawn(serve(core.clone(), listening));
    }
    worker::start_all(core, workers, nothing_else);
    Ok(())
}

fn announce(core: &Core, ready: &[(Listening, Serve)]) {
    let mut line = format!("{}: ready", core.name);
    let mut addresses = lock(&core.link.addresses);
    for (Listening { name, address, .. }, _) in ready {
        line.push_str(&format!(", {name} on {address}"));
        if let LocalAddress::Tcp(address) = address {
            addresses.push((name.clone(), *address));
        }
    }
    stderr::lines(&line);
}

fn tell_not_started(core: &Core, failure: Option<Error>) {
    let reason = failure.map(|error| {
        core.findings().start_failure = Some(error.exit_status());
        stderr::lines(&format!("error: {}", error.line()));
        Reason::StartFailed(error.line())
    });
    core.link.send(Event::NotStarted(reason));
}

async fn drain(core: &Arc<Core>, pre_shutdown: Vec<Hook>) {
    core.reached(Phase::LameDuck).await;
    if let Some(times) = core.stop_times() {
        let reports = run_all(pre_shutdown, times.schedule.cancel, &core.hard).await;
        core.findings().hooks.extend(reports);
    }
    core.link.send(Event::Prepared);
    core.reached(Phase::Draining).await;
    core.in_flight.seal();
    core.reached(Phase::Releasing).await;
    warn_of_the_unguarded(core);
}

fn warn_of_the_unguarded(core: &Core) {
    let mut findings = core.findings();
    let unguarded: Vec<String> = findings
        .listeners
        .iter()
        .filter(|listener| listener.closed_by == ListenerStop::Unguarded)
        .map(|listener| {
            format!(
                "listener {}: the system refused both SO_BINDTOIFINDEX and SO_ATTACH_FILTER; a \
                 connect in the last instant may have been reset",
                listener.name
            )
        })
        .collect();
    findings.notes.extend(unguarded);
}
