//! Carries a service through its phases on the runtime: starts, serves, and follows the stop.
//!
//! Decides nothing about stopping: it watches the phase and tells `control` when a step is done.

use std::future::Future;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::admin::Beside;
use crate::app::{Listener, Parts};
use crate::checks;
use crate::core::{Core, lock};
use crate::error::{BoxError, Error};
use crate::hooks::{Hook, Hooks, run_all, run_start};
use crate::lifecycle::{Event, Phase, Reason};
use crate::report::{HookOutcome, ListenerStop};
use crate::restart::{self, Predecessor};
use crate::serve::{self, Bound, Limits, Listening, LocalAddress, Passed, Serve};
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
    let mut begun = Begun::default();
    let started = tokio::select! {
        biased;
        () = core.abandon.cancelled() => Err(None),
        started = start(&core, prepare, &mut begun) => started.map_err(Some),
    };
    match started {
        Ok(pre_shutdown) => {
            core.link.send(Event::Started);
            core.reached(Phase::Ready).await;
            open_admin(&core, &mut begun);
            if let Some(predecessor) = begun.predecessor.take() {
                // Now that every listener can take what comes.
                tokio::spawn(predecessor.welcome(core.clone()));
            }
            drain(&core, pre_shutdown, &mut begun.beside).await;
        }
        Err(failure) => tell_not_started(&core, failure),
    }
    core.reached(Phase::Releasing).await;
    let Begun {
        releases, beside, ..
    } = begun;
    let releases = releases.due();
    if let Some(times) = core.stop_times() {
        let margin = END_MARGIN.min(core.budget.release / 4);
        // A hurried stop has moved the end already; nothing hurries releases beyond that.
        let nothing_hurries = CancellationToken::new();
        let by = times.schedule.end - margin;
        run_all(releases, by, &nothing_hurries, &core.findings).await;
    }
    if let Some(beside) = beside {
        beside.end().await;
    }
    drop(reaper);
    core.link.send(Event::Released);
}

/// Kept of the release share for ending in order rather than by the deadline.
const END_MARGIN: std::time::Duration = std::time::Duration::from_millis(200);

/// What has been begun and has to be ended, however far the start has come.
#[derive(Default)]
struct Begun {
    releases: Releases,
    /// What those who run the service see of it.
    beside: Option<Beside>,
    /// Where they will.
    admin: Option<(Listening, Serve)>,
    /// Whose connections are to be welcomed.
    predecessor: Option<Predecessor>,
}

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
    begun: &mut Begun,
) -> Result<Vec<Hook>, Error> {
    let Parts {
        name,
        mut listeners,
        workers,
        hooks,
        checks,
        figures,
        admin,
        restart_within,
        ready_when,
        stops,
    } = prepare.await?;
    let _ = core.figures.set(figures);
    if listeners.is_empty() && workers.is_empty() {
        return Err(Error::Nothing(name));
    }
    let admin = admin.map(|admin| admin.begin(core));
    let beside = admin.map(|(listener, beside)| {
        listeners.push(listener);
        beside
    });
    let predecessor = Predecessor::from_environment();
    let mut passed = match &predecessor {
        Some(predecessor) => Passed::handed_over(predecessor.listeners().await.map_err(
            |source| Error::Setup {
                what: "the sockets of the process before this one",
                source,
            },
        )?),
        None => Passed::from_environment(),
    };
    let mut bound = bind(listeners, &mut passed)?;
    let Hooks {
        start,
        pre_shutdown,
        post_cleanup,
    } = Hooks::arrange(hooks)?;
    if let Some(beside) = beside {
        let waiting = bound.pop().expect("it was bound last");
        beside.check_reach(&waiting.address()?)?;
        begun.admin = Some(waiting.listen()?);
        begun.beside = Some(beside);
    }
    if predecessor.is_none() {
        open_admin(core, begun);
    }
    let releases = &mut begun.releases;
    releases.not_started = start.iter().map(|hook| hook.name.clone()).collect();
    releases.hooks = post_cleanup;
    for hook in start {
        run_start_hook(core, hook, releases).await?;
    }
    let mut listening = listen(bound)?;
    if core.manager.stores() {
        listening.iter_mut().for_each(|(one, _)| store(core, one));
    }
    checks::watch(core, checks);
    if let Some(readying) = ready_when {
        checks::wait_for(core, readying);
    }
    if let Some(predecessor) = predecessor {
        core.checks.all_up().await;
        // Until then its clients, and whoever asks how it is, are answered by it alone.
        predecessor.ready(passed.into_taken()).await;
        begun.predecessor = Some(predecessor);
    }
    open(core, listening, workers);
    tokio::spawn(restart::watch(core.clone(), restart_within));
    for stop in stops {
        let link = core.link.clone();
        tokio::spawn(async move {
            stop.await;
            link.send(Event::Stop(Reason::Future));
        });
    }
    Ok(pre_shutdown)
}

/// Binds every listener; nobody can connect yet.
fn bind(listeners: Vec<Listener>, passed: &mut Passed) -> Result<Vec<Waiting>, Error> {
    let mut bound = Vec::new();
    #[cfg(feature = "tls")]
    let mut certificates = load_certificates(&listeners)?.into_iter();
    for listener in listeners {
        let socket = serve::bind(&listener.name, listener.address, listener.mode, passed)?;
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
    Ok(bound)
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
    let name = hook.name.clone();
    let source: BoxError = match run_start(hook, &core.findings).await {
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

impl Waiting {
    fn address(&self) -> Result<LocalAddress, Error> {
        self.socket.address().map_err(|source| Error::Bind {
            listener: self.name.clone(),
            address: "its address".to_owned(),
            source,
        })
    }

    fn listen(self) -> Result<(Listening, Serve), Error> {
        let address = self.address()?;
        let shared = self.socket.shared;
        let listener = self.socket.listen().map_err(|source| Error::Bind {
            listener: self.name.clone(),
            address: address.to_string(),
            source,
        })?;
        let listening = Listening {
            name: self.name,
            address,
            listener,
            shared,
            limits: self.limits,
            #[cfg(feature = "tls")]
            tls: self.tls,
        };
        Ok((listening, self.serve))
    }
}

/// Begins to serve those who run the service, if that has not begun yet.
fn open_admin(core: &Core, begun: &mut Begun) {
    if let (Some(beside), Some((listening, serve))) = (&begun.beside, begun.admin.take()) {
        stderr::lines(&format!("{}: admin on {}", core.name, listening.address));
        publish(core, &listening);
        beside.serve(listening, serve);
    }
}

/// Listens on everything before anything is served: when one listener fails, nothing was accepted.
fn listen(bound: Vec<Waiting>) -> Result<Vec<(Listening, Serve)>, Error> {
    bound.into_iter().map(Waiting::listen).collect()
}

/// Lets systemd keep a listener: its queue then outlives this process, and is passed to the next.
fn store(core: &Core, listening: &mut Listening) {
    if listening.shared {
        return;
    }
    match listening.listener.share() {
        Ok(socket) => {
            listening.shared = true;
            let name = listening.name.clone();
            core.manager.tell(Said::Store { name, socket });
        }
        Err(error) => {
            tracing::warn!(target: "sundown", %error, "a listener cannot be kept by systemd");
        }
    }
}

fn open(core: &Arc<Core>, ready: Vec<(Listening, Serve)>, workers: Vec<Worker>) {
    announce(core, &ready);
    let nothing_else = ready.is_empty();
    for (listening, serve) in ready {
        tokio::spawn(serve(core.clone(), listening));
    }
    worker::start_all(core, workers, nothing_else);
}

fn announce(core: &Core, listeners: &[(Listening, Serve)]) {
    let ready = match core.checks.readying() {
        true => "started",
        false => "ready",
    };
    let mut line = format!("{}: {ready}", core.name);
    for (listening, _) in listeners {
        let Listening { name, address, .. } = listening;
        line.push_str(&format!(", {name} on {address}"));
        publish(core, listening);
    }
    stderr::lines(&line);
}

/// Lets `Handle::address` know it.
fn publish(core: &Core, listening: &Listening) {
    if let LocalAddress::Tcp(address) = listening.address {
        lock(&core.link.addresses).push((listening.name.clone(), address));
    }
}

fn tell_not_started(core: &Core, failure: Option<Error>) {
    let reason = failure.map(|error| {
        core.findings().start_failure = Some(error.exit_status());
        stderr::lines(&format!("error: {}", error.line()));
        Reason::StartFailed(error.line())
    });
    core.link.send(Event::NotStarted(reason));
}

async fn drain(core: &Arc<Core>, pre_shutdown: Vec<Hook>, beside: &mut Option<Beside>) {
    core.reached(Phase::LameDuck).await;
    let restarts = matches!(core.findings().reason, Some(Reason::Restart(_)));
    if restarts {
        // Whoever asks how the service is, asks the successor from now on.
        if let Some(beside) = beside.take() {
            beside.end().await;
        }
    } else if let Some(times) = core.stop_times() {
        let by = times.schedule.cancel;
        run_all(pre_shutdown, by, &core.hard, &core.findings).await;
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
