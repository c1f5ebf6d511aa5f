//! `cargo xtask crashes`: the shop's books after SIGKILL and SIGTERM at random instants.
//!
//! One pair of databases lives through all rounds, so that what one stop breaks every later audit
//! sees. Never repairs anything, and judges by the tables, not by what a service says of itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use http::{HeaderValue, Method, header};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde::Serialize;
use shop::Audit;
use sundown_verify::plan::{Request, Requests};
use sundown_verify::process::{Ended, Spawn};
use sundown_verify::{Kind, Load, Plan, Process, Tally};
use tokio::net::TcpSocket;
use tokio::time::Instant;

use crate::ask::get;
use crate::folder::Folder;
use crate::workspace::Workspace;
use crate::{Verdict, progress};

/// Stop the shop under load at random instants, by SIGKILL and by SIGTERM, and audit its books
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many rounds stop by SIGKILL
    #[arg(long, value_name = "N", default_value_t = 100, env = "XTASK_KILLS")]
    kills: u32,
    /// How many rounds stop by SIGTERM
    #[arg(long, value_name = "N", default_value_t = 100, env = "XTASK_TERMS")]
    terms: u32,
    /// Choose instants and victims from this number on
    #[arg(long, value_name = "N", default_value_t = 1, env = "XTASK_SEED")]
    seed: u64,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// How long a service may take to listen and to end, and the outbox to drain.
const PATIENCE: Duration = Duration::from_secs(40);

/// When a stop may come, in milliseconds after the load began.
const INSTANTS: std::ops::RangeInclusive<u64> = 50..=700;

/// How many rounds lie between two audits.
const AUDIT_EVERY: usize = 10;

/// Of so many requests one cancels an order.
const CANCEL_EVERY: u64 = 8;

/// How often the outbox is asked whether it has drained.
const TICK: Duration = Duration::from_millis(20);

/// Who is stopped: indices of [`Shop::services`].
const VICTIMS: [&[usize]; 3] = [&[INVENTORY], &[ORDERS], &[INVENTORY, ORDERS]];

/// Starts first, as orders calls it.
const INVENTORY: usize = 0;
const ORDERS: usize = 1;

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Findings {
    kills: u32,
    terms: u32,
    acknowledged_orders: usize,
    acknowledged_cancels: usize,
    audits: u32,
    missing: usize,
    orders_without_stock: usize,
    stock_without_order: usize,
    miscounted_items: usize,
    /// Exits by SIGTERM, those before audits included.
    exits: u32,
    nonzero_exits: u32,
    /// Requests lost in rounds that stopped by SIGTERM; SIGKILL loses what is in flight.
    lost_by_sigterm: u64,
    examples: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    workspace.build_shop()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let findings = runtime.block_on(measure(workspace, arguments))?;
    let seed = arguments.seed;
    if arguments.json {
        let json = serde_json::json!({"schema": 1, "seed": seed, "crashes": findings});
        println!("{json}");
    } else {
        print_findings(&findings, seed);
    }
    Ok(findings.verdict())
}

async fn measure(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Findings> {
    let mut rng = StdRng::seed_from_u64(arguments.seed);
    let mut signals = vec![libc::SIGKILL; arguments.kills as usize];
    signals.resize((arguments.kills + arguments.terms) as usize, libc::SIGTERM);
    signals.shuffle(&mut rng);

    let mut shop = Shop::open(workspace).await?;
    let acknowledged = Acknowledged::default();
    let mut findings = Findings::default();
    for (round, signal) in signals.iter().enumerate() {
        progress::line(&format!("round {} of {}", round + 1, signals.len()));
        let instant = Duration::from_millis(rng.random_range(INSTANTS));
        let victims = VICTIMS.choose(&mut rng).expect("there are three");
        let load = Load::start(Plan {
            seed: rng.random(),
            ..orders_and_cancels(shop.services[ORDERS].address, round, &acknowledged)
        });
        tokio::time::sleep(instant).await;
        shop.stop(victims, *signal, &mut findings).await?;
        shop.start(victims).await?;
        findings.count(*signal, &load.finish().await);
        if (round + 1) % AUDIT_EVERY == 0 || round + 1 == signals.len() {
            shop.settle().await?;
            shop.stop(&[INVENTORY, ORDERS], libc::SIGTERM, &mut findings)
                .await?;
            findings.enter(&shop.audit().await?, &acknowledged);
            shop.start(&[INVENTORY, ORDERS]).await?;
        }
    }
    progress::clear();
    Ok(findings)
}

/// Both services and their databases. Dropped in this order: nobody writes into a folder that is
/// being removed.
struct Shop {
    services: [Service; 2],
    folder: Folder,
}

struct Service {
    spawn: Spawn,
    process: Option<Process>,
    address: SocketAddr,
    // Bound and never listening: while the service is down, no connection gets its port.
    _port: TcpSocket,
}

impl Shop {
    async fn open(workspace: &Workspace) -> anyhow::Result<Self> {
        let folder = Folder::new("crashes")?;
        let inventory = Service::new(workspace, &folder, "inventory")?;
        let mut orders = Service::new(workspace, &folder, "orders")?;
        let url = format!("http://{}", inventory.address);
        orders.spawn = orders.spawn.args(["--inventory", &url]);
        let mut shop = Self {
            services: [inventory, orders],
            folder,
        };
        shop.start(&[INVENTORY, ORDERS]).await?;
        Ok(shop)
    }

    async fn start(&mut self, which: &[usize]) -> anyhow::Result<()> {
        for index in which {
            let service = &mut self.services[*index];
            let process = service.process.insert(service.spawn.start()?);
            process.wait_listening(service.address, PATIENCE).await?;
        }
        Ok(())
    }

    /// Signals all, then waits for all. One that does not end is killed, and counted as not clean.
    async fn stop(
        &mut self,
        which: &[usize],
        signal: i32,
        findings: &mut Findings,
    ) -> anyhow::Result<()> {
        let mut stopping = Vec::new();
        for index in which {
            let process = self.services[*index].process.take();
            let mut process = process.expect("a service is started before it is stopped");
            process
                .signal(signal)
                .with_context(|| format!("it ended unasked: {}", process.stderr().trim()))?;
            stopping.push(process);
        }
        for mut process in stopping {
            let exit = process.wait_exit(PATIENCE).await.map(|exit| exit.ended);
            if signal == libc::SIGTERM {
                findings.count_exit(exit.as_ref().ok(), &process.stderr());
            } else {
                exit?;
            }
        }
        Ok(())
    }

    /// Waits until the outbox is empty. When that takes too long, the audit says what waits in it.
    async fn settle(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let orders = self.services[ORDERS].address;
        while waiting_in_outbox(orders).await? > 0 && Instant::now() < deadline {
            tokio::time::sleep(TICK).await;
        }
        Ok(())
    }

    async fn audit(&self) -> anyhow::Result<Audit> {
        let database = |service| database(&self.folder, service);
        let (orders, inventory) = (database("orders"), database("inventory"));
        Ok(shop::audit(&orders, &inventory).await?)
    }
}

impl Service {
    fn new(workspace: &Workspace, folder: &Folder, name: &str) -> anyhow::Result<Self> {
        let port = TcpSocket::new_v4()?;
        port.set_reuseaddr(true)?;
        port.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = port.local_addr()?;
        let spawn = Spawn::new(workspace.shop())
            .args([name, "--listen", &address.to_string()])
            .args(["--database", &database(folder, name)]);
        Ok(Self {
            spawn,
            process: None,
            address,
            _port: port,
        })
    }
}

/// Returns where a service's database lies.
fn database(folder: &Folder, service: &str) -> String {
    format!("sqlite:{}", folder.path().join(service).display())
}

async fn waiting_in_outbox(orders: SocketAddr) -> anyhow::Result<u64> {
    let answer = get(orders, "/outbox").await?;
    serde_json::from_str::<serde_json::Value>(&answer.body)
        .ok()
        .and_then(|outbox| outbox["pending"].as_u64())
        .with_context(|| {
            format!(
                "orders did not count its outbox: {} {}",
                answer.status, answer.body
            )
        })
}

/// What clients were told is done.
#[derive(Clone, Default)]
struct Acknowledged(Arc<Mutex<Done>>);

#[derive(Default)]
struct Done {
    orders: Vec<String>,
    cancels: usize,
}

impl Acknowledged {
    fn with<T>(&self, look: impl FnOnce(&mut Done) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, round: usize, request: &Request, status: u16) {
        if !(200..300).contains(&status) {
            return;
        }
        self.with(|done| match request.method {
            Method::POST => done.orders.push(order_id(round, request.tag)),
            _ => done.cancels += 1,
        });
    }
}

/// A load that places orders, and cancels now and then the one acknowledged last: the event that
/// reserves its stock may still wait in the outbox.
fn orders_and_cancels(target: SocketAddr, round: usize, acknowledged: &Acknowledged) -> Plan {
    let known = acknowledged.clone();
    let mut plan = Plan::against(target)
        .with(Kind::KeepAlive, 16)
        .with(Kind::NewConnection, 8);
    plan.requests = Requests::every(move |number| {
        let last = || known.with(|done| done.orders.last().cloned());
        match (number % CANCEL_EVERY == 0).then(last).flatten() {
            Some(id) => cancel(&id),
            None => place(&order_id(round, number)).tagged(number),
        }
    });
    plan.hang_limit = Duration::from_secs(10);
    let acknowledged = acknowledged.clone();
    plan.on_answer = Some(Arc::new(move |request, status, _| {
        acknowledged.note(round, request, status);
    }));
    plan
}

fn order_id(round: usize, number: u64) -> String {
    format!("{round}-{number}")
}

fn place(id: &str) -> Request {
    let body = serde_json::json!({"id": id, "item": "tea", "quantity": 1}).to_string();
    let json = HeaderValue::from_static("application/json");
    Request::post("/orders", body).header(header::CONTENT_TYPE, json)
}

fn cancel(id: &str) -> Request {
    Request {
        method: Method::DELETE,
        ..Request::get(format!("/orders/{id}"))
    }
}

impl Findings {
    /// Bounds the list of examples.
    const MAX_EXAMPLES: usize = 5;

    /// Counts a round.
    fn count(&mut self, signal: i32, tally: &Tally) {
        if signal == libc::SIGKILL {
            self.kills += 1;
            return;
        }
        self.terms += 1;
        self.lost_by_sigterm += tally.total.lost;
        for example in &tally.examples {
            self.describe(format!("{example:?}"));
        }
    }

    /// Counts an exit by SIGTERM; `None` is one that never came.
    fn count_exit(&mut self, ended: Option<&Ended>, said: &str) {
        self.exits += 1;
        if ended != Some(&Ended::Code(0)) {
            self.nonzero_exits += 1;
            self.describe(format!("ended by {ended:?}: {}", said.trim()));
        }
    }

    /// Enters an audit. Each sees all rounds so far, and the worst counts.
    fn enter(&mut self, audit: &Audit, acknowledged: &Acknowledged) {
        let missing = acknowledged.with(|done| {
            (self.acknowledged_orders, self.acknowledged_cancels) =
                (done.orders.len(), done.cancels);
            let ids = done.orders.iter().map(String::as_str);
            audit.missing_acknowledged(ids).len()
        });
        // There is stock for all, and the outbox had its time: nothing may be refused or wait.
        let without_stock =
            audit.orders_without_stock + audit.orders_awaiting_stock + audit.refused;
        self.audits += 1;
        self.missing = self.missing.max(missing);
        self.orders_without_stock = self.orders_without_stock.max(without_stock);
        self.stock_without_order = self.stock_without_order.max(audit.stock_without_order);
        self.miscounted_items = self.miscounted_items.max(audit.miscounted_items);
    }

    fn describe(&mut self, example: String) {
        if self.examples.len() < Self::MAX_EXAMPLES {
            self.examples.push(example);
        }
    }

    fn verdict(&self) -> Verdict {
        let books = self.missing
            + self.orders_without_stock
            + self.stock_without_order
            + self.miscounted_items;
        if books == 0 && self.nonzero_exits == 0 && self.lost_by_sigterm == 0 {
            Verdict::Holds
        } else {
            Verdict::Broken
        }
    }
}

fn print_findings(findings: &Findings, seed: u64) {
    let Findings { kills, terms, .. } = findings;
    let rounds = format!(
        "{} ({kills} SIGKILL, {terms} SIGTERM), seed {seed}",
        kills + terms
    );
    let acknowledged = format!(
        "{}, and {} cancels",
        findings.acknowledged_orders, findings.acknowledged_cancels
    );
    let nonzero = format!("{} of {}", findings.nonzero_exits, findings.exits);
    let lines = [
        ("rounds", rounds),
        ("audits", findings.audits.to_string()),
        ("acknowledged orders", acknowledged),
        ("missing", findings.missing.to_string()),
        (
            "orders without stock",
            findings.orders_without_stock.to_string(),
        ),
        (
            "stock without order",
            findings.stock_without_order.to_string(),
        ),
        ("items miscounted", findings.miscounted_items.to_string()),
        ("non-zero exits after SIGTERM", nonzero),
        (
            "requests lost by SIGTERM",
            findings.lost_by_sigterm.to_string(),
        ),
    ];
    for (what, count) in lines {
        println!("{what:30} {count}");
    }
    for example in &findings.examples {
        println!("    e.g. {example}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_acknowledged_by_a_success_only() {
        let acknowledged = Acknowledged::default();
        for (number, status) in [(1, 201), (2, 503), (3, 200), (4, 422)] {
            acknowledged.note(7, &place("any").tagged(number), status);
        }
        acknowledged.note(7, &cancel("7-1"), 200);
        acknowledged.with(|done| {
            assert_eq!(done.orders, ["7-1", "7-3"]);
            assert_eq!(done.cancels, 1);
        });
    }

    #[test]
    fn one_order_without_its_stock_breaks_the_promise() {
        let mut findings = Findings::default();
        findings.enter(&Audit::default(), &Acknowledged::default());
        assert_eq!(findings.verdict(), Verdict::Holds);

        let acknowledged = Acknowledged::default();
        acknowledged.note(1, &place("any").tagged(1), 201);
        findings.enter(&Audit::default(), &acknowledged);
        assert_eq!((findings.missing, findings.verdict()), (1, Verdict::Broken));
    }

    #[test]
    fn an_exit_that_is_not_0_or_never_comes_breaks_the_promise() {
        for ended in [Some(Ended::Code(4)), Some(Ended::Signal(15)), None] {
            let mut findings = Findings::default();
            findings.count_exit(Some(&Ended::Code(0)), "");
            assert_eq!(findings.verdict(), Verdict::Holds);
            findings.count_exit(ended.as_ref(), "");
            assert_eq!(findings.verdict(), Verdict::Broken, "{ended:?}");
        }
    }
}
