//! The guard itself: a [`sundown::App`] whose one worker is the application.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sundown::{Admin, App, BoxError, Figure, Handle, OnDeath, Worker};
use tokio::sync::mpsc;

use crate::control::Control;
use crate::hooks::hooks;
use crate::output::say;
use crate::retiring::ending;
use crate::supervision::{Orders, Shown, Supervision};
use crate::{Guard, HookWhen, orphans, signals};

/// Beyond the drain, for what is killed to be gone.
const KILLING: Duration = Duration::from_secs(2);

/// How the application has ended, if it did so by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it was told to, or not yet.
    Told,
    /// It could not be started.
    NotStarted(u8),
    Ended(u8),
}

pub(crate) fn run(guard: Guard) -> ExitCode {
    let outcome = Arc::new(Mutex::new(Outcome::Told));
    let report = serve(guard, outcome.clone());
    let told = *outcome.lock().unwrap_or_else(PoisonError::into_inner);
    match (told, report) {
        (Outcome::NotStarted(code) | Outcome::Ended(code), _) => ExitCode::from(code),
        (Outcome::Told, Ok(code)) => ExitCode::from(code),
        (Outcome::Told, Err(problem)) => {
            eprintln!("error: {problem}");
            ExitCode::from(2)
        }
    }
}

fn serve(mut guard: Guard, outcome: Arc<Mutex<Outcome>>) -> Result<u8, BoxError> {
    // Whom a keeper leaves behind would be nobody's otherwise.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let (control, signals) = {
        let _in_runtime = runtime.enter();
        (Control::open(&mut guard), signals::others()?)
    };
    let (requests, received) = mpsc::channel(1);
    match control {
        Ok(control) => drop(runtime.spawn(control.serve(requests))),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            return Err(format!(
                "a guard named {} runs already: give this one another --name",
                guard.name
            )
            .into());
        }
        Err(error) => say(
            &guard,
            &format!(
                "it cannot be asked by `sundown status` and the like: {error}; SUNDOWN_RUN_DIR names another folder"
            ),
        ),
    }
    let shown = Shown::default();
    let mut once_ready = shown.ready.subscribe();
    let time_of = |when| {
        let hooks = guard.hooks.iter().filter(|hook| hook.when == when);
        hooks.map(|hook| hook.timeout).sum::<Duration>()
    };
    let releasing = time_of(HookWhen::PostCleanup);
    let ending = ending(guard.drain);
    let mut app = App::new(guard.name.clone())
        .without_environment()
        .stop_signals_only()
        .ready_when("application", async move {
            let _ = once_ready.wait_for(|ready| *ready).await;
        })
        .grace(time_of(HookWhen::PreShutdown) + guard.drain + KILLING + releasing)
        .mercy(ending + KILLING)
        .linger(Duration::ZERO)
        .release_share(releasing);
    for hook in hooks(&guard.hooks, &guard.name) {
        app = app.hook(hook);
    }
    for figure in figures(&shown) {
        app = app.figure(figure);
    }
    if let Some(address) = &guard.admin {
        app = app.admin(Admin::at(address.as_str()));
    }
    let handle = app.handle();
    runtime.spawn(orphans::reap());
    let mut parts = Some((guard, received, signals, shown));
    let worker = Worker::new("application", move |ctx| {
        let (guard, requests, signals, shown) = parts.take().expect("it is started once");
        let (handle, outcome) = (handle.clone(), outcome.clone());
        async move {
            let orders = Orders {
                ctx,
                signals,
                handle: handle.clone(),
                requests,
            };
            let ended = match Supervision::start(guard, orders, shown) {
                Ok(supervision) => supervision.run().await,
                Err(error) => {
                    eprintln!("error: {error}");
                    stop(&handle, Outcome::NotStarted(2));
                    Outcome::NotStarted(2)
                }
            };
            *outcome.lock().unwrap_or_else(PoisonError::into_inner) = ended;
            Ok(())
        }
    });
    let app = app.add_worker(worker.on_death(OnDeath::StopService));
    Ok(runtime.block_on(app.serve())?.exit_code)
}

/// What those who run it see of the guard in numbers.
fn figures(shown: &Shown) -> Vec<Figure> {
    let counts = || shown.counts.subscribe();
    let (generation, restarts, failed) = (counts(), counts(), counts());
    let (crashes, cut_off) = (counts(), counts());
    let (retiring, holding) = (shown.retirees.clone(), shown.retirees.clone());
    vec![
        Figure::gauge(
            "generation",
            "The number of the generation that takes what connects",
            move || generation.borrow().generation.into(),
        ),
        Figure::gauge(
            "generations_retiring",
            "Generations that finish what they have",
            move || retiring.status().len() as f64,
        ),
        Figure::gauge(
            "generations_held",
            "What holds up their end: connections, and who waits in a queue",
            move || {
                let held = holding.status().into_iter().map(|one| one.held_count);
                held.sum::<usize>() as f64
            },
        ),
        Figure::counter(
            "restarts_done",
            "Generations that took over because that was asked for",
            move || restarts.borrow().restarts,
        ),
        Figure::counter(
            "restarts_failed",
            "Restarts that came to nothing",
            move || failed.borrow().failed_restarts,
        ),
        Figure::counter(
            "crashes",
            "Ends of the application that nobody asked for",
            move || crashes.borrow().crashes,
        ),
        Figure::counter(
            "generations_cut_off",
            "What was under way when its generation ended",
            move || cut_off.borrow().cut_off,
        ),
    ]
}

/// Without its application a guard has nothing to do.
pub(crate) fn stop(handle: &Handle, ended: Outcome) {
    match ended {
        Outcome::Told => {}
        Outcome::NotStarted(_) => handle.shutdown("the command could not be started"),
        Outcome::Ended(code) => handle.shutdown(format!("the application has ended ({code})")),
    }
}

/// Says why a command could not be started; the exit code is the one that shells give.
pub(crate) fn not_started(program: &str, error: &io::Error) -> Outcome {
    let (code, help) = match error.kind() {
        io::ErrorKind::NotFound if program.contains('/') && Path::new(program).exists() => {
            (126, "; its interpreter or loader is missing")
        }
        io::ErrorKind::NotFound => (127, "; is it installed, and on the PATH?"),
        _ => (126, ""),
    };
    eprintln!("error: {program} cannot be started: {error}{help}");
    Outcome::NotStarted(code)
}
