//! Lists what makes each kind of HTTP/1.1 client different, as data.
//!
//! Never does I/O: `http1` follows any habit.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use crate::channel::Endpoint;
use crate::http1::{Letter, Pace};
use crate::plan::{Kind, Request};
use crate::tcp::Window;

/// Says how a client behaves; all ranges are in milliseconds.
#[derive(Debug, Clone)]
pub(super) struct Habit {
    /// The pause between requests.
    pub(super) think: RangeInclusive<u64>,
    /// What happens to the connection after an answer.
    pub(super) keep: Keep,
    /// The silence between connect and the first byte.
    pub(super) silence: Option<RangeInclusive<u64>>,
    /// How many requests go out in one write.
    pub(super) burst: RangeInclusive<usize>,
    /// How a request is cut into writes.
    pub(super) cut: Cut,
    /// How fast answers are read.
    pub(super) pace: Pace,
    /// How much the kernel buffers.
    pub(super) window: Window,
}

/// Says what happens to a connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// It is used again.
    Alive,
    /// It is closed.
    Never,
}

/// Says how a request is cut into writes.
#[derive(Debug, Clone)]
pub(super) enum Cut {
    /// Not at all.
    Whole,
    /// In the middle of the head, with a pause of so many milliseconds.
    Halved(RangeInclusive<u64>),
    /// The body in so many parts, each after a pause of so many milliseconds.
    Trickled(usize, RangeInclusive<u64>),
}

const PLAIN: Habit = Habit {
    think: 0..=50,
    keep: Keep::Alive,
    silence: None,
    burst: 1..=1,
    cut: Cut::Whole,
    pace: Pace::Fast,
    window: Window::Usual,
};

impl Habit {
    /// Returns the habit of a kind of client.
    pub(super) fn of(kind: Kind) -> Self {
        match kind {
            Kind::KeepAlive | Kind::Slow | Kind::Http2 => PLAIN,
            Kind::NewConnection => Habit {
                think: 0..=10,
                keep: Keep::Never,
                ..PLAIN
            },
            Kind::Pipelined => Habit {
                burst: 2..=4,
                ..PLAIN
            },
            Kind::Silent => Habit {
                think: 0..=10,
                keep: Keep::Never,
                silence: Some(0..=400),
                ..PLAIN
            },
            Kind::HalfHead => Habit {
                cut: Cut::Halved(10..=200),
                ..PLAIN
            },
            Kind::SlowReader => Habit {
                pace: Pace::Slow,
                window: Window::Small,
                ..PLAIN
            },
            Kind::SlowUpload => Habit {
                cut: Cut::Trickled(8, 40..=95),
                ..PLAIN
            },
        }
    }

    /// Writes requests down in the pieces in which this client sends them.
    pub(super) fn letter(
        &self,
        requests: &[Request],
        target: Endpoint,
        rng: &mut StdRng,
    ) -> Letter {
        let letter = Letter::new(requests, target).read_at(self.pace);
        match &self.cut {
            Cut::Whole => letter,
            Cut::Halved(pause) => letter.halved(random(rng, pause.clone())),
            Cut::Trickled(parts, pause) => letter.trickled(*parts, random(rng, pause.clone())),
        }
    }
}

/// Draws a pause.
pub(super) fn random(rng: &mut StdRng, millis: RangeInclusive<u64>) -> Duration {
    Duration::from_millis(rng.random_range(millis))
}
