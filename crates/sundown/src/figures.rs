//! Numbers of a service's own, shown beside the library's.

use std::fmt;

use serde::Serialize;

/// A number that a service knows: for `/metrics`, where its name begins with `sundown_`, for `/lifecycle` and for
/// the page of the [`Admin`](crate::Admin) listener. It is read each time that somebody asks.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use sundown::{App, Figure};
///
/// let sold = Arc::new(AtomicU64::new(0));
/// let count = sold.clone();
/// let app = App::new("shop")
///     .figure(Figure::counter("sold", "Items sold", move || count.load(Ordering::Relaxed)));
/// # let _ = app;
/// ```
#[must_use = "a figure is shown only once it is given to an App"]
pub struct Figure {
    pub(crate) name: String,
    pub(crate) help: String,
    pub(crate) read: Read,
}

pub(crate) enum Read {
    Gauge(Box<dyn Fn() -> f64 + Send + Sync>),
    Counter(Box<dyn Fn() -> u64 + Send + Sync>),
}

impl Figure {
    /// A number that goes up and down. The name is made of a to z, 0 to 9 and `_`.
    pub fn gauge(
        name: impl Into<String>,
        help: impl Into<String>,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            help: help.into(),
            read: Read::Gauge(Box::new(read)),
        }
    }

    /// A number that only goes up; in `/metrics` its name ends with `_total`.
    pub fn counter(
        name: impl Into<String>,
        help: impl Into<String>,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            help: help.into(),
            read: Read::Counter(Box::new(read)),
        }
    }

    pub(crate) fn value(&self) -> f64 {
        match &self.read {
            Read::Gauge(read) => read(),
            Read::Counter(read) => read() as f64,
        }
    }
}

impl fmt::Debug for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Figure({})", self.name)
    }
}

/// What a service shows of its own.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) numbers: Vec<Figure>,
    pub(crate) texts: Vec<Text>,
}

/// Metrics in OpenMetrics' text.
pub(crate) type Text = Box<dyn Fn() -> String + Send + Sync>;

/// How a figure stands.
#[derive(Debug, Serialize)]
pub(crate) struct FigureStatus {
    name: String,
    help: String,
    value: f64,
}

impl From<&Figure> for FigureStatus {
    fn from(figure: &Figure) -> Self {
        Self {
            name: figure.name.clone(),
            help: figure.help.clone(),
            value: figure.value(),
        }
    }
}
