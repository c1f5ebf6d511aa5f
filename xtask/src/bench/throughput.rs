//! How many trivial requests a core answers in a second, and what each costs it.
//!
//! Closed loop over 32 kept-alive connections, so that the server always has something to do. The
//! server has a core to itself; that its share of it is near 1 and the client's below says that
//! the server was measured and not the client.

use std::io;
use std::time::{Duration, Instant};

use super::client::Client;
use super::findings::{Bound, Claim, Figure, Findings, Row};
use super::machine;
use super::side::{BASELINE, CONTROL, OURS, Server, Side, against, interleave};
use super::statistics::{estimate, estimate_over, median, ratios};
use super::{Bench, on_core};
use crate::progress;

/// How many connections share the load, in this subject and in latency.
pub(super) const CONNECTIONS: usize = 32;

/// How often the sides of a round take turns, each time in another order.
const TURNS: usize = 10;

/// Of the control's median ratio.
const THROUGHPUT: Bound = Bound::AtLeast(0.97);
pub(super) const CPU_TIME: Bound = Bound::AtMost(1.03);

/// One side's measurements, a value a round.
#[derive(Default)]
pub(super) struct Measured {
    /// Requests a second.
    pub(super) rate: Vec<f64>,
    /// Microseconds of the server's CPU time a request.
    pub(super) cpu: Vec<f64>,
    server_share: Vec<f64>,
    client_share: Vec<f64>,
    /// Milliseconds of a guard's CPU time in 10 s, where there is one.
    pub(super) guard: Vec<f64>,
}

/// One side of one round.
#[derive(Default)]
struct Tally {
    answered: f64,
    took: f64,
    server_cpu: f64,
    client_cpu: f64,
    /// Of its guard, in a second, also while the others were asked.
    guard_cpu: f64,
}

/// A server of a round, and its client.
struct Player {
    pid: u32,
    guard: Vec<u32>,
    client: Client,
}

/// Measures all sides; returns also the baseline's median rate, which is its saturation.
pub(super) async fn run(bench: &Bench<'_>) -> anyhow::Result<(Findings, f64)> {
    let mut sides = against("axum", bench.against)?;
    if let Some(program) = bench.earlier {
        sides.push(Side::earlier(program)?);
    }
    let measured = measure(bench, "throughput", &sides).await?;
    let saturation = median(&measured[BASELINE].rate);
    let mut claims = claims(&measured);
    if bench.earlier.is_some() {
        let earlier = measured.last().expect("it was the last side");
        claims.push(Claim::ratio(
            "throughput, sundown / sundown, earlier",
            estimate(&ratios(&measured[OURS].rate, &earlier.rate)),
            THROUGHPUT,
        ));
    }
    let findings = Findings {
        subject: "throughput",
        how: how(bench, "kept-alive connections"),
        commands: bench.commands(&sides, bench.server_core()),
        rows: rows(&sides, &measured),
        claims,
    };
    Ok((findings, saturation))
}

/// Says how it is measured over such connections.
pub(super) fn how(bench: &Bench<'_>, connections: &str) -> String {
    format!(
        "GET /fast over {CONNECTIONS} {connections}, closed loop, {} rounds of {:?} a side in {TURNS} turns, medians and \
         95 % intervals",
        bench.pairs, bench.length
    )
}

/// Finds the baseline's saturation alone.
pub(super) async fn saturation(bench: &Bench<'_>) -> anyhow::Result<f64> {
    let sides = against("axum", &[])?;
    let mut rates = Vec::new();
    for _ in 0..bench.pairs.min(5) {
        let tallies = measure_round(bench, &sides[..=BASELINE]).await?;
        rates.extend(tallies.iter().map(|tally| tally.answered / tally.took));
    }
    Ok(median(&rates))
}

/// A server that has its core to itself uses nearly all of it; one that does not was measured
/// together with whatever else ran there.
fn warn_of_neighbours(sides: &[Side], measured: &[Measured]) {
    for (side, own) in sides.iter().zip(measured) {
        let share = median(&own.server_share);
        if share < 0.9 {
            progress::clear();
            eprintln!(
                "warning: {} had {:.0} % of its core: measure again when nothing else runs here",
                side.label,
                100.0 * share
            );
        }
    }
}

/// Measures all sides, round by round.
pub(super) async fn measure(
    bench: &Bench<'_>,
    subject: &str,
    sides: &[Side],
) -> anyhow::Result<Vec<Measured>> {
    let mut measured: Vec<Measured> = sides.iter().map(|_| Measured::default()).collect();
    for round in 0..bench.pairs {
        progress::line(&format!(
            "{subject}: round {} of {}",
            round + 1,
            bench.pairs
        ));
        let tallies = measure_round(bench, sides).await?;
        for (side, tally) in measured.iter_mut().zip(tallies) {
            side.rate.push(tally.answered / tally.took);
            side.cpu.push(1e6 * tally.server_cpu / tally.answered);
            side.server_share.push(tally.server_cpu / tally.took);
            side.client_share.push(tally.client_cpu / tally.took);
            side.guard.push(10_000.0 * tally.guard_cpu);
        }
    }
    warn_of_neighbours(sides, &measured);
    Ok(measured)
}

/// Starts all, and lets them take turns: what the machine does to one in a while it does to all.
async fn measure_round(bench: &Bench<'_>, sides: &[Side]) -> anyhow::Result<Vec<Tally>> {
    let mut servers = Vec::new();
    for side in sides {
        servers.push(side.start(bench.workspace, bench.server_core()).await?);
    }
    let length = bench.length;
    let of = |(side, server): (&Side, &Server)| {
        let (pid, guard) = (server.pid, server.guard.clone());
        (pid, guard, server.address, side.tls().cloned())
    };
    let all: Vec<_> = sides.iter().zip(&servers).map(of).collect();
    let tallies = on_core(bench.machine.client_core, move || {
        let mut players = Vec::new();
        for (pid, guard, address, tls) in all {
            let mut client = Client::connect(address, CONNECTIONS, tls.as_ref())?;
            client.saturate(warm_up(length))?;
            players.push(Player { pid, guard, client });
        }
        let mut tallies: Vec<Tally> = players.iter().map(|_| Tally::default()).collect();
        let began = Instant::now();
        let guarding: Vec<_> = players
            .iter()
            .map(Player::guarding)
            .collect::<Result<_, _>>()?;
        for (_, index) in interleave(TURNS, players.len()) {
            players[index].play(length / TURNS as u32, &mut tallies[index])?;
        }
        for ((player, before), tally) in players.iter().zip(guarding).zip(&mut tallies) {
            tally.guard_cpu = (player.guarding()? - before).div_duration_f64(began.elapsed());
        }
        Ok(tallies)
    })
    .await?;
    for server in servers {
        server.end().await?;
    }
    Ok(tallies)
}

impl Player {
    fn play(&mut self, length: Duration, tally: &mut Tally) -> anyhow::Result<()> {
        let (server, own) = (machine::cpu_time(self.pid)?, machine::thread_cpu_time()?);
        let seen = self.client.saturate(length)?;
        tally.answered += seen.answered as f64;
        tally.took += seen.took.as_secs_f64();
        tally.server_cpu += (machine::cpu_time(self.pid)? - server).as_secs_f64();
        tally.client_cpu += (machine::thread_cpu_time()? - own).as_secs_f64();
        Ok(())
    }

    fn guarding(&self) -> io::Result<Duration> {
        self.guard.iter().map(|pid| machine::cpu_time(*pid)).sum()
    }
}

/// How long a fresh server runs before it is measured.
pub(super) fn warm_up(length: Duration) -> Duration {
    length / 5
}

pub(super) fn rows(sides: &[Side], measured: &[Measured]) -> Vec<Row> {
    let baseline = &measured[BASELINE];
    let row = |(side, own): (&Side, &Measured)| Row {
        server: side.label.clone(),
        figures: vec![
            Figure::plain("throughput", "/s", median(&own.rate)),
            Figure::ratio(
                "of the baseline's",
                estimate(&ratios(&own.rate, &baseline.rate)),
            ),
            Figure::plain("CPU a request", "µs", median(&own.cpu)),
            Figure::ratio(
                "of the baseline's",
                estimate(&ratios(&own.cpu, &baseline.cpu)),
            ),
            Figure::plain("server's core", "%", 100.0 * median(&own.server_share)),
            Figure::plain("client's core", "%", 100.0 * median(&own.client_share)),
        ],
    };
    sides.iter().zip(measured).map(row).collect()
}

fn claims(measured: &[Measured]) -> Vec<Claim> {
    let (base, ours) = (&measured[BASELINE], &measured[OURS]);
    vec![
        throughput_claim("throughput, sundown / axum, of the A/A control", measured),
        Claim::ratio(
            "CPU time a request, sundown / axum",
            estimate(&ratios(&ours.cpu, &base.cpu)),
            CPU_TIME,
        ),
    ]
}

/// Judges our rate by the baseline's, in units of the control's.
pub(super) fn throughput_claim(what: &str, measured: &[Measured]) -> Claim {
    let (base, control, ours) = (&measured[BASELINE], &measured[CONTROL], &measured[OURS]);
    Claim::ratio(
        what,
        estimate_over(
            &ratios(&ours.rate, &base.rate),
            &ratios(&control.rate, &base.rate),
        ),
        THROUGHPUT,
    )
}
