//! The faults, and how they are called.

/// Makes the enum, and finds a fault by its name.
macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident = $name:literal,)*) => {
        #[derive(Clone, Copy, PartialEq)]
        pub(crate) enum Fault {
            None,
            $($(#[$doc])* $fault,)*
        }

        impl Fault {
            pub(crate) fn named(name: &str) -> Self {
                match name {
                    "none" => Self::None,
                    $($name => Self::$fault,)*
                    _ => panic!("no fault is named {name}"),
                }
            }
        }
    };
}

faults! {
    /// Everything is finished, and the process stays.
    Stays = "stays",
    /// The exit code tells of a failure.
    Status = "status",
    /// SIGINT has no handler.
    Interrupt = "interrupt",
    /// The listener is closed with its queue full.
    Backlog = "backlog",
    /// The listener stays open, and nobody accepts.
    Zombie = "zombie",
    /// Idle connections are closed at once, whatever their sockets hold.
    BlindIdle = "blind-idle",
    /// Answers after the signal do not say close, and are followed by it.
    Untold = "untold",
    /// What is in flight gets next to no time.
    Impatient = "impatient",
    /// A connection whose head is half there is closed.
    HalfHead = "half-head",
    /// A connection whose first request comes after the signal is closed.
    Early = "early",
    /// Idle connections are waited for.
    WaitsForIdle = "waits-for-idle",
    /// What it answers is not HTTP.
    Garbled = "garbled",
    /// What never ends is waited for.
    Boundless = "boundless",
    /// As PID 1 it has no handlers.
    First = "first",
    /// A signal is lost on a server that has had nothing but slow requests, and many.
    Busy = "busy",
    /// A child is left behind.
    Orphan = "orphan",
    /// A child is left behind that has the listener.
    Leak = "leak",
    /// Who connects in the lame-duck window is not told to leave.
    LameUntold = "lame-untold",
    /// It is ready to the end.
    Ready = "ready",
    /// It is not alive once it stops.
    Dead = "dead",
    /// A stream that is cut looks whole.
    Whole = "whole",
    /// A stream goes on as long as the process may.
    Streams = "streams",
    /// An event is cut.
    Event = "event",
    /// A WebSocket is closed without a word.
    Wordless = "wordless",
    /// A connection is closed with bytes unread.
    Unread = "unread",
    /// Every process ends with another status.
    Unstable = "unstable",
    /// What it acknowledges once it stops is not stored.
    Forgets = "forgets",
    /// A reload closes the listener for a while.
    Reload = "reload",
    /// It listens again for a while after it has closed its listener.
    Reopens = "reopens",
    /// HTTP/2 streams are cut after GOAWAY.
    CutsStreams = "cuts-streams",
    /// GOAWAY comes without a warning.
    OneStep = "one-step",
    /// A gRPC stream ends without a status.
    Statusless = "statusless",
    /// TLS ends without close_notify.
    Unnotified = "unnotified",
    /// A TLS handshake that is under way is cut.
    HalfHello = "half-hello",
    /// It listens by io_uring.
    Ring = "ring",
    /// It has a ring of io_uring, as for files, and listens as ever.
    IdleRing = "idle-ring",
}
