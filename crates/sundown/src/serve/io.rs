//! The socket under hyper: notes what arrives and what was flushed, and closes without a reset.
//!
//! Owns the connection's end for every protocol and for upgrades: when the last owner drops it,
//! the connection is over and the drain knows. Never closes a socket with unread data in it while
//! the peer may still be reading (that would send RST and could destroy the answer on its way).

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::ReadBuf;
use tokio::runtime::Handle;

use super::proxy::{self, Header};
use super::registry::{Fate, Registered};
use super::socket::{Held, Socket};
use super::websocket::{Conversation, is_control};

/// How long after our FIN a peer is waited for that takes nothing, or only sends.
const LONGEST: Duration = Duration::from_secs(5);

/// The length of HTTP/2's preface, the only one that is looked for.
const PREFACE_LENGTH: usize = 24;

/// How much of a proxy's header is looked at a time: most are shorter.
const PEEKED: usize = 256;

/// Up to this many bytes are put together before they are written: the kernel takes a short answer
/// in one piece some 6 % of a trivial request faster than its head and body apart, and a copy of
/// this length costs a tenth of that.
const TOGETHER: usize = 2048;

/// A connection's socket, with all that is known of its end.
pub(super) struct Io {
    socket: Held,
    /// Bytes that were read before hyper could have them.
    rewound: Bytes,
    ending: Option<Ending>,
    /// Once a WebSocket is spoken.
    websocket: Option<Box<Conversation>>,
    connection: Arc<Registered>,
}

/// The end of a connection, and when it began.
#[derive(Clone, Copy)]
enum Ending {
    /// Our FIN is not out; under TLS something has to be written before it.
    Saying(Instant),
    /// It is, and the peer's is waited for. It had not taken so many bytes when it was last looked at.
    Waiting(Instant, usize),
}

impl Ending {
    fn is_too_long(self) -> bool {
        let (Self::Saying(began) | Self::Waiting(began, _)) = self;
        began.elapsed() >= LONGEST
    }
}

impl Io {
    pub(super) fn new(socket: Socket, connection: Arc<Registered>) -> Self {
        Self {
            socket: Held::new(socket),
            rewound: Bytes::new(),
            ending: None,
            websocket: None,
            connection,
        }
    }

    pub(super) fn connection(&self) -> &Arc<Registered> {
        &self.connection
    }

    /// Whether only the socket is left to be kept.
    pub(super) fn can_rest(&self) -> bool {
        self.rewound.is_empty() && self.socket.can_rest()
    }

    /// Takes the socket out of the runtime's driver. Bytes that were put back would be lost.
    pub(super) fn into_std(mut self) -> io::Result<StdTcpStream> {
        debug_assert!(self.can_rest(), "bytes would be lost");
        let socket = self.socket.take();
        socket.map_or_else(|| Err(io::ErrorKind::NotConnected.into()), Socket::into_std)
    }

    /// The socket, out of the runtime's driver, and what was put back of its bytes.
    pub(super) fn into_parts(mut self) -> io::Result<(OwnedFd, Bytes)> {
        let rewound = std::mem::take(&mut self.rewound);
        let socket = self.socket.take();
        let socket =
            socket.map_or_else(|| Err(io::ErrorKind::NotConnected.into()), Socket::into_fd);
        socket.map(|socket| (socket, rewound))
    }

    /// Puts bytes back, to be read again.
    pub(super) fn rewind(&mut self, bytes: Bytes) {
        debug_assert!(
            self.rewound.is_empty(),
            "bytes are put back before they are read again"
        );
        self.rewound = bytes;
    }

    /// Hears a proxy's header and shakes hands, where that is due; false when the peer's FIN came instead.
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if !ready!(self.poll_header(cx))? {
            return Poll::Ready(Ok(false));
        }
        self.socket.poll_open(cx)
    }

    /// Takes the header and no byte more: what follows may be of TLS. Until it is whole, `rewound` has what
    /// there is of it.
    fn poll_header(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.connection.is_unannounced() {
            let mut space = [0; PEEKED];
            let mut seen = ReadBuf::new(&mut space);
            if ready!(self.socket.poll_peek_raw(cx, &mut seen))? == 0 {
                return Poll::Ready(Ok(false));
            }
            if self.rewound.is_empty() {
                self.connection.handshake_begins();
            }
            let before = self.rewound.len();
            let held = [&self.rewound[..], seen.filled()].concat();
            let header = proxy::read(&held);
            let header =
                header.map_err(|garbled| io::Error::new(io::ErrorKind::InvalidData, garbled))?;
            let until = match header {
                Header::Partial => held.len(),
                Header::Whole { length, .. } => length,
            };
            // They are there: they were seen.
            let mut taken = ReadBuf::new(&mut space[..until - before]);
            ready!(self.socket.poll_read_raw(cx, &mut taken))?;
            self.rewound = held.into();
            if let Header::Whole { peer, .. } = header {
                self.connection.is_announced(peer);
                self.rewound = Bytes::new();
            }
        }
        Poll::Ready(Ok(true))
    }

    /// Waits for the first bytes, without taking them away from whoever reads next, until they
    /// decide whether they begin with `preface`. `None` at the peer's FIN.
    pub(super) fn poll_begins_with(
        &mut self,
        cx: &mut Context<'_>,
        preface: &[u8],
    ) -> Poll<io::Result<Option<bool>>> {
        if !ready!(self.poll_open(cx))? {
            return Poll::Ready(Ok(None));
        }
        let mut bytes = [0; PREFACE_LENGTH];
        if self.rewound.is_empty() {
            // Peeking costs no memory, and decides for all but a client that sends byte by byte.
            let mut seen = ReadBuf::new(&mut bytes);
            if let Some(peeked) = self.socket.poll_peek(cx, &mut seen) {
                if ready!(peeked)? == 0 {
                    return Poll::Ready(Ok(None));
                }
                self.connection.bytes_arrived();
                if let Some(decision) = decide(seen.filled(), preface) {
                    return Poll::Ready(Ok(Some(decision)));
                }
            }
        }
        loop {
            if let Some(decision) = decide(&self.rewound, preface) {
                return Poll::Ready(Ok(Some(decision)));
            }
            let mut more = ReadBuf::new(&mut bytes);
            ready!(self.socket.poll_read(cx, &mut more))?;
            if more.filled().is_empty() {
                return Poll::Ready(Ok(None));
            }
            self.connection.bytes_arrived();
            self.rewound = [&self.rewound[..], more.filled()].concat().into();
        }
    }

    /// True when nothing has arrived that we have not read.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.rewound.is_empty() && self.socket.is_quiet()
    }

    /// Writes what fits into the kernel's buffer at once; for a last word to a client that did not
    /// finish its own.
    pub(super) fn say(&mut self, bytes: &[u8]) {
        self.socket.say(bytes);
    }

    /// Sends FIN and waits until the peer has closed, too, or has been quiet after taking
    /// everything, or takes nothing more. The reaper says when to look.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut ending = self.ending.unwrap_or_else(|| {
            self.connection.closes();
            Ending::Saying(Instant::now())
        });
        if self.poll_end(cx, &mut ending).is_ready() {
            return Poll::Ready(Ok(()));
        }
        self.connection.wake_for_orders(cx.waker().clone());
        if self.connection.take_order_to_look() {
            let goes_on = !ending.is_too_long();
            match &mut ending {
                Ending::Saying(_) if goes_on => {}
                Ending::Waiting(_, before) => {
                    let unsent = self.socket.unsent_bytes();
                    let takes_more = unsent > 0 && unsent < *before;
                    if !takes_more && (unsent == 0 || !goes_on) {
                        return Poll::Ready(Ok(()));
                    }
                    *before = unsent;
                }
                Ending::Saying(_) => return Poll::Ready(Ok(())),
            }
            self.connection.closes();
        }
        self.ending = Some(ending);
        Poll::Pending
    }

    /// Sends what is left to be said and FIN, and waits for the peer's.
    fn poll_end(&mut self, cx: &mut Context<'_>, ending: &mut Ending) -> Poll<()> {
        if let Ending::Saying(began) = *ending {
            if ready!(self.socket.poll_shutdown(cx)).is_err() {
                return Poll::Ready(());
            }
            *ending = Ending::Waiting(began, usize::MAX);
        }
        self.poll_discard(cx, *ending)
    }

    /// Tells whoever has it since an upgrade that it is cut off: the application's own task, which nobody
    /// else can end.
    fn look_for_the_cut(&self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.connection.is_upgraded() {
            return Ok(());
        }
        self.connection.wake_for_orders(cx.waker().clone());
        if self.connection.is_cut() {
            self.connection.set_fate(Fate::CutOff);
            self.socket.abort();
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    /// Says the last word on a WebSocket, if it is due.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(Conversation { outbound, .. }) = self.websocket.as_deref_mut() else {
            return Poll::Ready(Ok(()));
        };
        if self.connection.take_order_to_part() {
            outbound.part();
        }
        while !outbound.word().is_empty() {
            let written = ready!(self.socket.poll_write(cx, outbound.word()))?;
            outbound.word_written(written);
            let _ = self.socket.poll_flush(cx);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what may follow on a WebSocket. Behind the last word the application's own close counts
    /// as written, since it is said; a message fails, so that a loop which only writes ends.
    fn poll_write_frames(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_part(cx))?;
        let conversation = self.websocket.as_mut().expect("the caller has looked");
        let outbound = &mut conversation.outbound;
        if outbound.is_over() {
            return Poll::Ready(match is_control(bytes) {
                true => Ok(bytes.len()),
                false => Err(io::ErrorKind::BrokenPipe.into()),
            });
        }
        let admitted = outbound.admits(bytes);
        let written = ready!(self.socket.poll_write(cx, &bytes[..admitted]))?;
        outbound.pass(&bytes[..written]);
        // What is not said now is said before the next bytes, or when something is read.
        let _ = self.poll_part(cx);
        Poll::Ready(Ok(written))
    }

    /// Reads until a client has answered the last word, and closes then. Nobody else has the socket.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.connection.wake_for_orders(cx.waker().clone());
        let mut waste = [const { MaybeUninit::uninit() }; 4096];
        while self
            .websocket
            .as_deref()
            .is_some_and(Conversation::awaits_answer)
        {
            if self.connection.is_cut() {
                self.connection.set_fate(Fate::CutOff);
                self.websocket = None;
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::uninit(&mut waste);
            let read = ready!(self.socket.poll_read(cx, &mut buffer));
            match (&mut self.websocket, buffer.filled()) {
                (Some(conversation), heard @ [_, ..]) if read.is_ok() => {
                    conversation.inbound.pass(heard);
                }
                _ => self.websocket = None,
            }
        }
        match self.connection.is_cut() {
            true => Poll::Ready(()),
            false => self.poll_close(cx).map(drop),
        }
    }

    /// Reads and forgets until the peer is gone, or has sent for longer than we listen.
    fn poll_discard(&mut self, cx: &mut Context<'_>, ending: Ending) -> Poll<()> {
        let mut waste = [const { MaybeUninit::uninit() }; 4096];
        loop {
            let mut buffer = ReadBuf::uninit(&mut waste);
            let result = ready!(self.socket.poll_read_raw(cx, &mut buffer));
            if result.is_err() || buffer.filled().is_empty() || ending.is_too_long() {
                return Poll::Ready(());
            }
        }
    }
}

/// A WebSocket's owner may end when its client has yet to answer the last word: to close now would reset the
/// connection under that.
impl Drop for Io {
    fn drop(&mut self) {
        let waits = self
            .websocket
            .as_deref_mut()
            .is_some_and(Conversation::leave);
        if !waits || self.ending.is_some() || self.connection.is_cut() {
            return;
        }
        if let (Some(socket), Ok(runtime)) = (self.socket.take(), Handle::try_current()) {
            let mut io = Self::new(socket, self.connection.clone());
            io.websocket = self.websocket.take();
            runtime.spawn(poll_fn(move |cx| io.poll_answer(cx)));
        }
    }
}

/// Puts together what fits; false when it does not.
fn gather(slices: &[io::IoSlice<'_>], together: &mut ReadBuf<'_>) -> bool {
    let fits = slices.iter().map(|slice| slice.len()).sum::<usize>() <= together.capacity();
    if fits {
        for slice in slices {
            together.put_slice(slice);
        }
    }
    fits
}

/// Whether the bytes begin with the preface, as soon as that can be told.
fn decide(seen: &[u8], preface: &[u8]) -> Option<bool> {
    let common = seen.len().min(preface.len());
    if seen[..common] != preface[..common] {
        return Some(false);
    }
    (common == preface.len()).then_some(true)
}

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.rewound.is_empty() {
            let count = self.rewound.len().min(cursor.remaining());
            cursor.put_slice(&self.rewound[..count]);
            self.rewound.advance(count);
            if self.rewound.is_empty() {
                // An empty `Bytes` would still hold its memory.
                self.rewound = Bytes::new();
            }
            self.connection.bytes_arrived();
            return Poll::Ready(Ok(()));
        }
        self.look_for_the_cut(cx)?;
        if self.websocket.is_some() {
            // Its error is found by whoever reads or writes next.
            let _ = self.poll_part(cx);
        }
        // SAFETY: only bytes that `poll_read` has filled are declared as initialised.
        let mut buffer = ReadBuf::uninit(unsafe { cursor.as_mut() });
        ready!(self.socket.poll_read(cx, &mut buffer))?;
        let count = buffer.filled().len();
        if count > 0 {
            self.connection.bytes_arrived();
        }
        if let Some(conversation) = &mut self.websocket {
            conversation.inbound.pass(buffer.filled());
        }
        // SAFETY: `count` bytes were filled just now.
        unsafe { cursor.advance(count) };
        Poll::Ready(Ok(()))
    }
}

impl Write for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.look_for_the_cut(cx)?;
        if self.websocket.is_some() {
            return self.poll_write_frames(cx, bytes);
        }
        let written = ready!(self.socket.poll_write(cx, bytes));
        self.connection.bytes_left();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.look_for_the_cut(cx)?;
        if self.websocket.is_some() {
            let mut slices = slices.iter().map(|slice| &**slice);
            let first = slices.find(|slice| !slice.is_empty()).unwrap_or_default();
            return self.poll_write_frames(cx, first);
        }
        let mut together = [const { MaybeUninit::uninit() }; TOGETHER];
        let mut together = ReadBuf::uninit(&mut together);
        let written = ready!(if gather(slices, &mut together) {
            self.socket.poll_write(cx, together.filled())
        } else {
            self.socket.poll_write_vectored(cx, slices)
        });
        self.connection.bytes_left();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper calls this only once its own buffer is empty.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.socket.poll_flush(cx))?;
        self.connection.flushed();
        if self.websocket.is_none() && self.connection.is_websocket() {
            // The head of the upgrade is out: frames follow.
            self.websocket = Some(Box::default());
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_close(cx)
    }
}
