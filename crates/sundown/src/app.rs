//! Builds a service out of listeners, workers and hooks, and runs it.

use std::collections::HashSet;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::watch;

use crate::admin::{self, Admin};
use crate::budget::Wishes;
use crate::checks::{Check, Readying};
use crate::context::Context;
use crate::control::{self, Owner};
use crate::core::{Core, Link, lock};
use crate::error::{BoxError, Error};
use crate::figures::{Figure, Figures};
use crate::hooks::{Hook, HookResult};
use crate::lifecycle::{Event, Phase, Reason};
use crate::release::Release;
use crate::report::Report;
use crate::serve::{self, Address, Connection, HttpService, Limits, Serve};
use crate::settings::{AdminSettings, Settings};
use crate::signals::Requests;
#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::traffic::Traffic;
use crate::worker::Worker;
use crate::{shell, stderr};

/// A service: what it serves, what works beside it, and how it stops.
///
/// Every duration can be changed by its operator, see [`Budget`](crate::Budget) and the
/// [environment](crate#environment).
#[must_use = "an App does nothing until it is run"]
pub struct App {
    name: String,
    wishes: Wishes,
    environment: bool,
    report: Option<PathBuf>,
    listeners: Vec<Listener>,
    workers: Vec<Worker>,
    hooks: Vec<Hook>,
    checks: Vec<Check>,
    figures: Figures,
    admin: Option<Admin>,
    admin_settings: AdminSettings,
    requests: Requests,
    restart_within: Duration,
    ready_when: Option<Readying>,
    stops: Vec<StopFuture>,
    link: Arc<Link>,
    inbox: mpsc::Receiver<Event>,
}

/// What is left of an [`App`] once its settings are taken.
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) checks: Vec<Check>,
    pub(crate) figures: Figures,
    pub(crate) admin: Option<admin::Settled>,
    pub(crate) restart_within: Duration,
    pub(crate) ready_when: Option<Readying>,
    pub(crate) stops: Vec<StopFuture>,
}

/// Who may connect to a Unix socket, if nobody says otherwise.
const MODE: u32 = 0o660;

/// How long a successor may take, if nobody says otherwise.
const RESTART_WITHIN: Duration = Duration::from_secs(60);

type StopFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A name, an address and a service, with limits for its clients.
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use sundown::{App, Listener};
///
/// let router = Router::new().route("/", get(|| async { "ok" }));
/// let app = App::new("shop").listener(
///     Listener::http("[::]:8080", router)
///         .name("public")
///         .head_timeout(Duration::from_secs(5))
///         .body_limit(Some(1 << 20)),
/// );
/// # let _ = app;
/// ```
#[must_use = "a listener does nothing until it is given to an App"]
pub struct Listener {
    pub(crate) name: String,
    pub(crate) address: Address,
    pub(crate) limits: Limits,
    pub(crate) mode: u32,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Tls>,
    pub(crate) serve: Serve,
}

impl Listener {
    /// Serves HTTP/1.1 and HTTP/2 (prior knowledge) on TCP. Its name is `http`.
    pub fn http<S: HttpService + Sync>(address: impl Into<Address>, service: S) -> Self {
        Self {
            name: "http".to_owned(),
            address: address.into(),
            limits: Limits::default(),
            mode: MODE,
            #[cfg(feature = "tls")]
            tls: None,
            serve: serve::start(service),
        }
    }

    /// Gives every connection to a handler that speaks a protocol of its own. Its name is `tcp`.
    ///
    /// Its [`Context`] says `draining` when it is to come to an end, and `cancelled` when time is up. The
    /// connection is awaited, and cut off by its listener's name. An error is logged, and ends that connection
    /// only.
    ///
    /// ```
    /// use sundown::{App, Listener};
    /// use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    ///
    /// let lines = Listener::tcp("127.0.0.1:0", |mut connection, ctx| async move {
    ///     let (read, mut write) = tokio::io::split(&mut connection);
    ///     let mut lines = BufReader::new(read).lines();
    ///     loop {
    ///         tokio::select! {
    ///             line = lines.next_line() => match line? {
    ///                 Some(line) => write.write_all(line.to_uppercase().as_bytes()).await?,
    ///                 None => break,
    ///             },
    ///             () = ctx.draining() => break,
    ///         }
    ///     }
    ///     write.shutdown().await?;
    ///     Ok(())
    /// });
    /// let app = App::new("shouter").listener(lines);
    /// # let _ = app;
    /// ```
    pub fn tcp<H, F>(address: impl Into<Address>, handler: H) -> Self
    where
        H: Fn(Connection, Context) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        Self {
            name: "tcp".to_owned(),
            address: address.into(),
            limits: Limits::default(),
            mode: MODE,
            #[cfg(feature = "tls")]
            tls: None,
            serve: serve::start_raw(handler),
        }
    }

    /// Names it: for the report, and for sockets passed by `LISTEN_FDS` with `LISTEN_FDNAMES`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Serves under TLS; see [`Tls`].
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Expects each connection to begin with a header of the PROXY protocol (version 1 or 2), and takes the
    /// client's address from it; a connection without one is closed. For listeners that nobody but a proxy
    /// reaches: whoever writes a header may claim to be anybody.
    pub fn proxy_protocol(mut self) -> Self {
        self.limits.proxy_protocol = true;
        self
    }

    /// Who may connect to a Unix socket: the mode of its file. Default 0o660, its owner and its group.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// How long a request head may take from its first byte to its last; then 408. Default 10 s.
    pub fn head_timeout(mut self, timeout: Duration) -> Self {
        self.limits.head_timeout = timeout;
        self
    }

    /// How long an idle connection is kept. Default 75 s.
    pub fn keep_alive(mut self, timeout: Duration) -> Self {
        self.limits.keep_alive = timeout;
        self
    }

    /// The longest request body, in bytes; `None` for no limit. Default 64 MiB. Handlers that
    /// collect bodies by axum's extractors are bound by axum's own limit (2 MB) as well.
    pub fn body_limit(mut self, bytes: Option<u64>) -> Self {
        self.limits.body = bytes.unwrap_or(u64::MAX);
        self
    }

    /// Gives handlers the client's address by `axum::extract::ConnectInfo<SocketAddr>`, as
    /// `into_make_service_with_connect_info` does for `axum::serve`. Not by default: it costs some
    /// 3 % of a trivial request's CPU time.
    #[cfg(feature = "axum")]
    pub fn connect_info(mut self) -> Self {
        self.limits.connect_info = true;
        self
    }

    /// Offers WebSockets over HTTP/2 as well (RFC 8441). Not by default: they cannot be told close (1001), as
    /// they share their connection, and browsers open them over HTTP/1.1 unless they are offered this. They
    /// stay as a CONNECT does, see [`Traffic`].
    pub fn http2_websockets(mut self) -> Self {
        self.limits.http2_websockets = true;
        self
    }

    /// How long traffic of a class may stay once the service drains; [`Traffic`] has the defaults.
    /// `Duration::MAX` is to the end of the drain.
    pub fn stay(mut self, traffic: Traffic, stay: Duration) -> Self {
        self.limits.stays.set(traffic, stay);
        self
    }

    /// Tells clients of server-sent events, as the last word of a stop, after what time to come back
    /// (`retry:`, in whole milliseconds). Not told by default: browsers wait a few seconds.
    pub fn event_retry(mut self, retry: Duration) -> Self {
        self.limits.event_retry = Some(retry);
        self
    }

    /// How many connections are served at a time; more wait in the kernel's queue.
    /// Default 65,536.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.limits.connections = connections.max(1);
        self
    }
}

impl App {
    /// Begins a service of this name.
    pub fn new(name: impl Into<String>) -> Self {
        let (link, inbox) = Link::new();
        Self {
            name: name.into(),
            wishes: Wishes::default(),
            environment: true,
            report: None,
            listeners: Vec::new(),
            workers: Vec::new(),
            hooks: Vec::new(),
            checks: Vec::new(),
            figures: Figures::default(),
            admin: None,
            admin_settings: AdminSettings::default(),
            requests: Requests::default(),
            restart_within: RESTART_WITHIN,
            ready_when: None,
            stops: Vec::new(),
            link,
            inbox,
        }
    }

    /// The longest a stop may take, everything included. Default 25 s; `SUNDOWN_GRACE`.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.wishes.grace = Some(grace);
        self
    }

    /// How long new connections are still served after the stop began. Default 0;
    /// `SUNDOWN_LAME_DUCK`.
    pub fn lame_duck(mut self, lame_duck: Duration) -> Self {
        self.wishes.lame_duck = Some(lame_duck);
        self
    }

    /// How long idle connections stay open for a request that was on its way; of more than 800 some
    /// end earlier, over up to half of it. Default 500 ms; `SUNDOWN_LINGER`.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.wishes.linger = Some(linger);
        self
    }

    /// The share of grace kept for releases. Default 5 s; `SUNDOWN_RELEASE`.
    pub fn release_share(mut self, release: Duration) -> Self {
        self.wishes.release = Some(release);
        self
    }

    /// The time between cancelling and cutting off. Default 500 ms; `SUNDOWN_MERCY`.
    pub fn mercy(mut self, mercy: Duration) -> Self {
        self.wishes.mercy = Some(mercy);
        self
    }

    /// Takes no setting from the environment: it is somebody else's, such as that of a program which this one
    /// runs.
    pub fn without_environment(mut self) -> Self {
        self.environment = false;
        self
    }

    /// Writes the report as JSON to this file when the service has stopped; `-` is stdout.
    /// `SUNDOWN_REPORT`.
    pub fn report_to(mut self, path: impl Into<PathBuf>) -> Self {
        self.report = Some(path.into());
        self
    }

    /// Serves HTTP/1.1 and HTTP/2 on an address, with default limits; see [`Listener`].
    pub fn http<S: HttpService + Sync>(self, address: impl Into<Address>, service: S) -> Self {
        self.listener(Listener::http(address, service))
    }

    /// Gives the connections of an address to a handler; see [`Listener::tcp`].
    pub fn tcp<H, F>(self, address: impl Into<Address>, handler: H) -> Self
    where
        H: Fn(Connection, Context) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.listener(Listener::tcp(address, handler))
    }

    /// Adds a listener.
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Adds a background loop that is started again when it dies; see [`Worker`].
    #[track_caller]
    pub fn worker<F, Fut>(self, name: impl Into<Arc<str>>, run: F) -> Self
    where
        F: FnMut(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.add_worker(Worker::new(name, run))
    }

    /// Adds a worker.
    pub fn add_worker(mut self, worker: Worker) -> Self {
        self.workers.push(worker);
        self
    }

    /// Runs before anything is served; see [`Hook::on_start`].
    pub fn on_start<F, Fut>(self, name: impl Into<String>, run: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output: HookResult> + Send + 'static,
    {
        self.hook(Hook::on_start(name, run))
    }

    /// Runs when the stop begins; see [`Hook::pre_shutdown`].
    pub fn pre_shutdown<F, Fut>(self, name: impl Into<String>, run: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output: HookResult> + Send + 'static,
    {
        self.hook(Hook::pre_shutdown(name, run))
    }

    /// Runs after everything has drained; see [`Hook::post_cleanup`].
    pub fn post_cleanup<F, Fut>(self, name: impl Into<String>, run: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output: HookResult> + Send + 'static,
    {
        self.hook(Hook::post_cleanup(name, run))
    }

    /// Releases a resource after everything has drained: `.release("orders-db", pool.clone())`.
    pub fn release<R: Release>(self, name: impl Into<String>, resource: R) -> Self {
        self.hook(Hook::post_cleanup(name, move || resource.release()))
    }

    /// Adds a hook.
    pub fn hook(mut self, hook: Hook) -> Self {
        self.hooks.push(hook);
        self
    }

    /// Counts the service as ready only while this holds; see [`Check`].
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Shows a number of the service's own beside the library's; see [`Figure`].
    pub fn figure(mut self, figure: Figure) -> Self {
        self.figures.numbers.push(figure);
        self
    }

    /// Shows metrics of the service's own in `/metrics`, behind the library's: in OpenMetrics' text (1.0), such as
    /// those of `sundown-telemetry`. Whoever does not know that gets them in Prometheus' format, without exemplars.
    ///
    /// ```
    /// let text = || String::from("# HELP sold Items sold.\n# TYPE sold counter\nsold_total 7\n# EOF\n");
    /// let app = sundown::App::new("shop").metrics(text);
    /// # let _ = app;
    /// ```
    pub fn metrics(mut self, text: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.figures.texts.push(Box::new(text));
        self
    }

    /// Opens a listener for those who run the service; see [`Admin`]. `SUNDOWN_ADMIN`.
    pub fn admin(mut self, admin: Admin) -> Self {
        self.admin = Some(admin);
        self
    }

    /// The signal that restarts the program in place, see [`Handle::restart`]; `None` for none. Default
    /// SIGUSR2.
    pub fn restart_signal(mut self, signal: Option<i32>) -> Self {
        self.requests.restart = signal;
        self
    }

    /// Leaves every signal alone that stops nothing: SIGHUP, SIGUSR1 and that of a restart are the program's own.
    pub fn stop_signals_only(mut self) -> Self {
        self.requests = Requests::none();
        self
    }

    /// How long a successor may take from its start until it is ready. Default 60 s;
    /// `SUNDOWN_RESTART_WITHIN`.
    pub fn restart_within(mut self, limit: Duration) -> Self {
        self.restart_within = limit;
        self
    }

    /// Counts the service as ready only once this future has completed as well: until then systemd is not told,
    /// and `/readyz` says by `name` what is waited for. It serves whoever comes all the same.
    pub fn ready_when(
        mut self,
        name: impl Into<String>,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        self.ready_when = Some(Readying {
            name: name.into(),
            future: Box::pin(future),
        });
        self
    }

    /// Stops the service when this future completes.
    pub fn stop_when(mut self, future: impl Future<Output = ()> + Send + 'static) -> Self {
        self.stops.push(Box::pin(future));
        self
    }

    /// Does this once all else is done and logged, and before the process ends, also where that is ended because grace
    /// is over or at a third signal: it is the place to write out what a logger has not written yet. It is given 200 ms
    /// of the 250 that the process waits for it, and runs on a thread of its own, beside whatever hangs.
    ///
    /// ```
    /// # struct Log;
    /// # impl Log { fn flush(&self, within: std::time::Duration) {} }
    /// # let log = Log;
    /// let app = sundown::App::new("shop").last_words(move |within| log.flush(within));
    /// ```
    pub fn last_words(self, say: impl FnOnce(Duration) + Send + 'static) -> Self {
        self.link.last_words.add(say);
        self
    }

    /// A handle to stop the service and to watch it.
    pub fn handle(&self) -> Handle {
        Handle {
            link: self.link.clone(),
        }
    }

    /// Runs the service on a runtime of its own until it has stopped, and returns its exit code.
    ///
    /// Never waits for a blocking task past grace: where the runtime cannot be ended in order, the
    /// process is.
    pub fn run(self) -> ExitCode {
        self.run_with(|app| std::future::ready(Ok(app)))
    }

    /// Like [`run`](Self::run), for a service whose parts need a runtime to be made: `build` gets
    /// this App and gives back the complete one. A signal meanwhile drops it.
    ///
    /// The budget is that of the App before `build`.
    ///
    /// ```no_run
    /// # use std::process::ExitCode;
    /// # use axum::Router;
    /// # use sundown::App;
    /// # struct Pool;
    /// # impl Pool { async fn connect(_: &str) -> std::io::Result<Pool> { Ok(Pool) } async fn close(&self) {} }
    /// fn main() -> ExitCode {
    ///     App::new("shop").run_with(|app| async move {
    ///         let pool = Pool::connect("postgres://localhost/shop").await?;
    ///         Ok(app
    ///             .http("127.0.0.1:8080", Router::new())
    ///             .post_cleanup("pool", move || async move { pool.close().await }))
    ///     })
    /// }
    /// ```
    pub fn run_with<F, Fut>(self, build: F) -> ExitCode
    where
        F: FnOnce(Self) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Self, BoxError>> + Send + 'static,
    {
        match self.run_to_end(build) {
            Ok(report) => report.exit_status().into(),
            Err(error) => {
                stderr::lines(&format!("error: {}", error.line()));
                error.exit_status().into()
            }
        }
    }

    fn run_to_end<F, Fut>(mut self, build: F) -> Result<Report, Error>
    where
        F: FnOnce(Self) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Self, BoxError>> + Send + 'static,
    {
        let (core, told) = self.begin(Owner::Us)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("sundown-worker")
            .build()
            .map_err(|source| Error::Setup {
                what: "the runtime",
                source,
            })?;
        runtime.spawn(shell::live(core, async move {
            build(self).await.map_err(Error::Build)?.into_parts()
        }));
        let report = told
            .blocking_recv()
            .expect("the control thread tells before it ends");
        // Blocking tasks that are left end with the process.
        runtime.shutdown_background();
        Ok(report)
    }

    /// Runs the service on the caller's runtime until it has stopped.
    ///
    /// Signals are handled while it runs, and grace is enforced as by [`run`](Self::run): if the
    /// stop does not end in time, the process does.
    ///
    /// # Errors
    /// What can be known to be wrong before anything is started. A start that fails later is told
    /// by the report.
    pub async fn serve(mut self) -> Result<Report, Error> {
        let (core, told) = self.begin(Owner::Embedder)?;
        tokio::spawn(shell::live(core, std::future::ready(self.into_parts())));
        Ok(told.await.expect("the control thread tells before it ends"))
    }

    /// Settles the settings and starts the control thread: signals are handled from here.
    fn begin(
        &mut self,
        owner: Owner,
    ) -> Result<(Arc<Core>, tokio::sync::oneshot::Receiver<Report>), Error> {
        let Settings {
            wishes,
            report,
            admin,
            restart_within,
        } = match self.environment {
            true => Settings::from_environment(self.wishes)?,
            false => Settings::of(self.wishes),
        };
        self.admin_settings = admin;
        self.restart_within = restart_within.unwrap_or(self.restart_within);
        let budget = wishes.settle()?;
        let core = Core::new(self.name.clone(), budget, self.link.clone());
        let (_, nobody) = mpsc::channel();
        let inbox = std::mem::replace(&mut self.inbox, nobody);
        let told = control::start(
            core.clone(),
            inbox,
            owner,
            report.or(self.report.take()),
            self.requests,
        )?;
        Ok((core, told))
    }

    fn into_parts(self) -> Result<Parts, Error> {
        let Self {
            name,
            listeners,
            workers,
            hooks,
            checks,
            figures,
            admin,
            admin_settings,
            restart_within,
            ready_when,
            stops,
            ..
        } = self;
        let admin = Admin::merge(admin, admin_settings);
        let listener_names = listeners.iter().map(|listener| listener.name.as_str());
        let listener_names = listener_names.chain(admin.as_ref().map(|_| admin::NAME));
        check_names("listeners", listener_names)?;
        check_names("workers", workers.iter().map(|worker| &*worker.name))?;
        let awaited = ready_when.as_ref().map(|readying| readying.name.as_str());
        let check_names_given = checks.iter().map(|check| check.name.as_str());
        check_names("checks", check_names_given.chain(awaited))?;
        let admin = admin.map(Admin::settle).transpose()?;
        Ok(Parts {
            name,
            listeners,
            workers,
            hooks,
            checks,
            figures,
            admin,
            restart_within,
            ready_when,
            stops,
        })
    }
}

fn check_names<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Error::Names(format!(
                "two {what} are named {name}; give each a name of its own"
            )));
        }
    }
    Ok(())
}

/// Stops a service, and watches it, from anywhere.
#[derive(Clone)]
pub struct Handle {
    link: Arc<Link>,
}

impl Handle {
    /// Asks for a stop, as SIGTERM does; the reason is told in the log and the report. A service
    /// that is stopping already goes on as it does.
    pub fn shutdown(&self, reason: impl Into<String>) {
        self.link.send(Event::Stop(Reason::Handle(reason.into())));
    }

    /// All metrics in OpenMetrics' text, as the admin listener shows them: for who hands them to a collector. `None`
    /// before the service is begun, and after its end.
    pub fn metrics(&self) -> Option<String> {
        let core = self.link.core.get()?.upgrade()?;
        Some(admin::metrics(&core))
    }

    /// Restarts the program in place, as SIGUSR2 does: starts it again from its file with the same arguments,
    /// hands it the listening sockets, and drains this process once the successor is ready. No connection is
    /// refused meanwhile, and idle plaintext connections of HTTP/1 go on in the successor. A successor that
    /// fails, hangs or dies is told in the log, and this process serves on; so it does as PID 1, whose end
    /// would be its container's.
    ///
    /// For a while both processes run. What only one may have at a time, such as a lock, the successor must
    /// not wait for in a start hook: it would never be ready.
    ///
    /// `pre_shutdown` hooks do not run, as the service does not go away; `post_cleanup` hooks do.
    pub fn restart(&self) {
        self.link.restarts.send_modify(|count| *count += 1);
    }

    /// The phase, and every change of it.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.link.phase.subscribe()
    }

    /// Waits until the service is ready, or will never be; says which phase it is in then.
    pub async fn ready(&self) -> Phase {
        let mut phases = self.phases();
        let phase = phases.wait_for(|phase| *phase >= Phase::Ready).await;
        phase.map_or(Phase::Stopped, |phase| *phase)
    }

    /// The address of the listener of this name, once it is open; with port 0 the system chose it. A Unix
    /// socket has none.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        let addresses = lock(&self.link.addresses);
        addresses
            .iter()
            .find(|(name, _)| name == listener)
            .map(|(_, address)| *address)
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({} on {})", self.name, self.address)
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handle({})", *self.link.phase.borrow())
    }
}
