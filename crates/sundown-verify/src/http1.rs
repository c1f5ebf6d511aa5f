//! Exchanges requests and responses over one HTTP/1.1 connection, byte by byte.
//!
//! The promise: every request of an exchange ends with [`Evidence`] of what the wire did,
//! including the connection's state just before and just after the first write. Never retries and
//! never opens a connection behind the caller's back.

pub mod message;

use std::io;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::channel::{Channel, Endpoint, Farewell};
use crate::dial;
pub use crate::dial::Unmade;
use crate::outcome::{Disclaimed, End, Evidence, Persistence, Protocol, Reuse, Seen, Sent, Taken};
use crate::plan::Request;
use crate::tcp::{Look, TcpState, Window};
use crate::timeline::Span;
use message::{Reader, Response, encode_head};

/// Is an HTTP/1.1 connection from the client's side.
#[derive(Debug)]
pub struct Connection {
    stream: Channel,
    incoming: BytesMut,
    reuse: Reuse,
    /// When the connect began.
    began: Instant,
    /// How it looked before hands were shaken, if that had not come to its end.
    greeted: Option<Look>,
}

impl Connection {
    /// Connects, and under TLS shakes hands, for at most `limit`.
    ///
    /// # Errors
    /// [`Unmade`], which carries the evidence for the request that was to be sent.
    pub async fn open(
        target: impl Into<Endpoint>,
        window: Window,
        limit: Duration,
    ) -> Result<Self, Unmade> {
        let began = Instant::now();
        let stream = dial::open(target.into(), window, limit, Protocol::Http1).await?;
        Ok(Self::over(stream, began))
    }

    /// Connects, for at most `limit`, and under TLS begins to shake hands: for a server that does not
    /// answer yet.
    pub(crate) async fn dial(
        target: Endpoint,
        window: Window,
        limit: Duration,
    ) -> Result<Self, Unmade> {
        let began = Instant::now();
        let mut stream = dial::dial(target, window, limit, Protocol::Http1).await?;
        let greeted = Some(Look::at(&stream));
        // If that fails, so will what follows.
        let _ = stream.greet().await;
        Ok(Self {
            greeted,
            ..Self::over(stream, began)
        })
    }

    /// Connects, for at most `limit`, and begins to shake hands with half a ClientHello, a pause, and
    /// the rest.
    pub(crate) async fn halting(
        target: Endpoint,
        pause: Duration,
        limit: Duration,
    ) -> Result<Self, Unmade> {
        let began = Instant::now();
        let mut stream = dial::dial(target, Window::Usual, limit, Protocol::Http1).await?;
        let greeted = Some(Look::at(&stream));
        let hello = stream.take_greeting();
        let (half, rest) = hello.split_at(hello.len() / 2);
        // If that fails, so will what follows.
        let _ = stream.write_beneath(half).await;
        sleep(pause).await;
        let _ = stream.write_beneath(rest).await;
        Ok(Self {
            greeted,
            ..Self::over(stream, began)
        })
    }

    fn over(stream: Channel, began: Instant) -> Self {
        Self {
            stream,
            incoming: BytesMut::new(),
            reuse: Reuse::Fresh,
            began,
            greeted: None,
        }
    }

    /// Takes note of what TLS has said since, such as close_notify: the kernel's state does not tell.
    fn hear(&mut self) {
        if self.stream.speaks_tls() && !self.stream.is_handshaking() {
            self.incoming.reserve(READ_SIZE);
            let mut read = pin!(self.stream.read_buf(&mut self.incoming));
            let _ = read.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// Tells how the server has ended the connection, once that was read.
    pub(crate) fn farewell(&self) -> Option<Farewell> {
        self.stream.farewell()
    }

    /// Notes that the connection is going to be silent for a while before its first request.
    pub fn preconnected(mut self) -> Self {
        self.reuse = Reuse::Preconnected;
        self
    }

    /// Waits until the server has closed the connection, in order or by a reset.
    ///
    /// # Cancel safety
    /// Safe: bytes that come meanwhile are kept.
    pub async fn closed_by_peer(&mut self) {
        loop {
            self.incoming.reserve(READ_SIZE);
            if let Ok(0) | Err(_) = self.stream.read_buf(&mut self.incoming).await {
                return;
            }
        }
    }

    /// Writes bytes that are no letter, such as the beginning of a request that never ends.
    pub(crate) async fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Gives up HTTP, after an upgrade: the socket, and what was read beyond the last answer.
    pub(crate) fn into_parts(self) -> (Channel, BytesMut) {
        (self.stream, self.incoming)
    }

    /// Sends a letter and reads the answers to it, for at most `limit` in all.
    pub async fn exchange(&mut self, letter: &Letter, limit: Duration) -> Exchange {
        let deadline = Instant::now() + limit;
        let mut exchange = Exchange::new(self, letter);
        if timeout_at(deadline, self.write(letter, &mut exchange))
            .await
            .is_err()
        {
            exchange.end_with(End::Hung, None);
        }
        self.read(letter, &mut exchange, deadline).await;
        exchange
    }

    /// Writes a letter, with its pauses, unless or until the exchange ends.
    ///
    /// # Cancel safety
    /// The exchange knows how much was written when the future is dropped.
    pub(crate) async fn write(&mut self, letter: &Letter, exchange: &mut Exchange) {
        for piece in &letter.pieces {
            if !piece.pause.is_zero() {
                // An answer, or the end, may come while there is more to send.
                let _ = timeout(piece.pause, self.receive(letter, exchange)).await;
            }
            if exchange.end.is_some() {
                return;
            }
            self.write_piece(&piece.bytes, letter, exchange).await;
        }
        if letter.half_closed && exchange.end.is_none() {
            // A connection that is gone already shows when it is read.
            let _ = self.stream.shutdown().await;
        }
    }

    async fn write_piece(&mut self, bytes: &[u8], letter: &Letter, exchange: &mut Exchange) {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.stream.write(rest).await {
                Ok(written) => {
                    exchange.after.get_or_insert_with(|| Look::at(&self.stream));
                    exchange.written += written;
                    rest = &rest[written..];
                }
                Err(error) => {
                    // An answer may have come before the reset.
                    self.receive(letter, exchange).await;
                    if exchange.end != Some(End::Answer) {
                        exchange.end = None;
                        exchange.end_with(End::Reset, Some(error));
                    }
                    return;
                }
            }
        }
    }

    /// Reads what is still missing of the answers, until the deadline.
    pub(crate) async fn read(
        &mut self,
        letter: &Letter,
        exchange: &mut Exchange,
        deadline: Instant,
    ) {
        if exchange.end.is_none()
            && timeout_at(deadline, self.receive(letter, exchange))
                .await
                .is_err()
        {
            exchange.end_with(End::Hung, None);
        }
        if exchange.end != Some(End::Answer) {
            exchange.finally = Some(Look::at(&self.stream));
        }
        exchange.unshaken = self.stream.is_handshaking();
        if !exchange.responses.is_empty() {
            self.reuse = Reuse::Reused;
        }
    }

    /// Reads until the exchange ends.
    ///
    /// # Cancel safety
    /// What was read is in the exchange or in the buffer when the future is dropped.
    async fn receive(&mut self, letter: &Letter, exchange: &mut Exchange) {
        let mut pacer = Pacer::new(letter.pace);
        while exchange.take_from(&mut self.incoming, letter.requests) {
            self.incoming.reserve(READ_SIZE);
            match self.stream.read_buf(&mut self.incoming).await {
                Ok(0) => return exchange.end_at_eof(letter.requests),
                Ok(read) => pacer.read(read, exchange.reader.length()).await,
                Err(error) => {
                    let end = match error.kind() {
                        io::ErrorKind::TimedOut => End::Hung,
                        io::ErrorKind::InvalidData => End::Garbled,
                        _ => End::Reset,
                    };
                    return exchange.end_with(end, Some(error));
                }
            }
        }
    }
}

const READ_SIZE: usize = 16 * 1024;

/// Is one or more requests as bytes, in the pieces in which they shall be written.
#[derive(Debug, Clone)]
pub struct Letter {
    pieces: Vec<Piece>,
    requests: usize,
    head: usize,
    length: usize,
    pace: Pace,
    half_closed: bool,
}

#[derive(Debug, Clone)]
struct Piece {
    pause: Duration,
    bytes: Bytes,
}

/// Says how fast the answers are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As fast as they come.
    Fast,
    /// With thirty pauses, evenly spread over the announced length.
    Slow,
}

impl Letter {
    /// Puts the requests into one piece.
    pub fn new(requests: &[Request], target: impl Into<Endpoint>) -> Self {
        let target = target.into().address;
        let mut bytes = Vec::with_capacity(256);
        let mut head = 0;
        for (index, request) in requests.iter().enumerate() {
            encode_head(request, target, &mut bytes);
            if index == 0 {
                head = bytes.len();
            }
            bytes.extend_from_slice(&request.body);
        }
        let length = bytes.len();
        let pieces = vec![Piece {
            pause: Duration::ZERO,
            bytes: bytes.into(),
        }];
        Self {
            pieces,
            requests: requests.len(),
            head,
            length,
            pace: Pace::Fast,
            half_closed: false,
        }
    }

    /// Sends FIN behind the requests.
    pub fn half_closed(mut self) -> Self {
        self.half_closed = true;
        self
    }

    /// Returns how many requests it holds.
    pub(crate) fn requests(&self) -> usize {
        self.requests
    }

    /// Returns the first request's method and target.
    pub(crate) fn first_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.pieces[0].bytes);
        let words: Vec<&str> = text.split(' ').take(2).collect();
        words.join(" ")
    }

    /// Sends half of the head, pauses, and sends the rest.
    pub fn halved(self, pause: Duration) -> Self {
        let half = self.head / 2;
        self.cut(&[half], pause)
    }

    /// Sends the head, and then the body in `parts` parts with a pause before each.
    pub fn trickled(self, parts: usize, pause: Duration) -> Self {
        let body = self.length - self.head;
        let cuts: Vec<_> = (0..parts)
            .map(|part| self.head + body * part / parts)
            .collect();
        self.cut(&cuts, pause)
    }

    /// Reads the answers at another pace.
    pub fn read_at(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    fn cut(mut self, cuts: &[usize], pause: Duration) -> Self {
        let mut rest = Bytes::from_iter(self.pieces.drain(..).flat_map(|piece| piece.bytes));
        let mut taken = 0;
        for cut in cuts {
            let bytes = rest.split_to(cut - taken);
            taken = *cut;
            self.pieces.push(Piece { pause, bytes });
        }
        self.pieces.push(Piece { pause, bytes: rest });
        self.pieces[0].pause = Duration::ZERO;
        self
    }
}

/// Records an exchange: what was sent, what came back, and what ended it.
#[derive(Debug)]
pub struct Exchange {
    reuse: Reuse,
    began: Instant,
    ended: Instant,
    before: Look,
    after: Option<Look>,
    finally: Option<Look>,
    head: usize,
    length: usize,
    written: usize,
    /// Whether hands were not shaken to its end, so that nothing of a request was sent.
    unshaken: bool,
    reader: Reader,
    responses: Vec<Response>,
    /// When each of the responses was whole.
    answered: Vec<Instant>,
    end: Option<End>,
    error: Option<io::Error>,
}

impl Exchange {
    /// Looks at the connection before the first byte is written, and ends at once if it is closed.
    pub(crate) fn new(connection: &mut Connection, letter: &Letter) -> Self {
        connection.hear();
        let handshake = connection.stream.is_handshaking();
        // Its first bytes are sent already.
        let greeted = connection.greeted.filter(|_| handshake);
        let mut before = greeted.unwrap_or_else(|| Look::at(&connection.stream));
        if connection.farewell() == Some(Farewell::Announced) {
            // close_notify says what FIN says, and may come long before it.
            before.state = TcpState::CloseWait;
        }
        let end = match before.state {
            TcpState::Close => Some(End::Reset),
            state if state.peer_has_closed() => Some(End::Eof),
            _ => None,
        };
        let now = Instant::now();
        Self {
            reuse: connection.reuse,
            began: match connection.reuse {
                Reuse::Fresh => connection.began,
                Reuse::Preconnected | Reuse::Reused => now,
            },
            ended: now,
            before,
            after: None,
            finally: None,
            head: letter.head,
            length: letter.length,
            written: 0,
            unshaken: false,
            reader: Reader::default(),
            responses: Vec::new(),
            answered: Vec::new(),
            end,
            error: None,
        }
    }

    /// Returns the answers, in the order of the requests; there may be fewer.
    pub fn responses(&self) -> &[Response] {
        &self.responses
    }

    /// Returns what the operating system said, if it said anything.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    /// Returns when the request with this index began, with the connect where that was made for it,
    /// and when it was over.
    pub fn span(&self, index: usize) -> Span {
        Span {
            from: self.began,
            to: self.answered.get(index).copied().unwrap_or(self.ended),
        }
    }

    /// Tells whether the connection may carry another exchange.
    pub fn persistence(&self) -> Persistence {
        match (self.end, self.responses.last()) {
            (Some(End::Answer), Some(last)) if self.written == self.length => last.persistence,
            _ => Persistence::Close,
        }
    }

    /// Returns the last bytes of a body that has not come to its end.
    pub fn last_bytes(&self) -> &[u8] {
        self.reader.last_bytes()
    }

    /// Returns the evidence for the request with this index.
    pub fn evidence(&self, index: usize) -> Evidence {
        let answered = self.responses.len();
        let seen = match self.responses.get(index) {
            Some(response) => Seen::Whole {
                status: response.status,
                persistence: response.persistence,
            },
            None if index == answered => self.reader.seen(),
            None => Seen::Nothing,
        };
        let disclaimed = match self.said_close() && index >= answered {
            true => Disclaimed::BehindClose,
            false => Disclaimed::No,
        };
        Evidence {
            protocol: Protocol::Http1,
            reuse: if answered > 0 {
                Reuse::Reused
            } else {
                self.reuse
            },
            before: Some(self.before.state),
            after: self.after.map(|look| look.state),
            finally: self.finally.map(|look| look.state),
            sent: self.sent(),
            taken: self.taken(),
            seen,
            disclaimed,
            end: self.end.unwrap_or(End::Hung),
        }
    }

    fn sent(&self) -> Sent {
        match self.written {
            _ if self.unshaken => Sent::Handshake,
            0 => Sent::Nothing,
            written if written < self.head => Sent::PartOfHead,
            written if written < self.length => Sent::PartOfBody,
            _ => Sent::All,
        }
    }

    /// Finds the first look after the end of the connection had arrived: the server's FIN
    /// acknowledges all that had reached it before.
    fn taken(&self) -> Taken {
        let looks = [self.after, self.finally];
        match looks
            .into_iter()
            .flatten()
            .find(|look| look.state.peer_has_closed())
        {
            None => Taken::Unknown,
            Some(look) if look.acked > self.before.acked => Taken::Some,
            Some(_) => Taken::Nothing,
        }
    }

    fn said_close(&self) -> bool {
        self.responses
            .last()
            .is_some_and(|last| last.persistence == Persistence::Close)
    }

    /// Takes whole responses from the buffer; returns whether there is more to read.
    fn take_from(&mut self, incoming: &mut BytesMut, requests: usize) -> bool {
        while self.end.is_none() {
            match self.reader.advance(incoming) {
                Ok(Some(response)) => self.push(response, requests),
                Ok(None) => return true,
                Err(error) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, error);
                    self.end_with(End::Garbled, Some(error));
                }
            }
        }
        false
    }

    fn push(&mut self, response: Response, requests: usize) {
        self.responses.push(response);
        self.answered.push(Instant::now());
        self.reader.begin_next();
        if self.responses.len() == requests || self.said_close() {
            self.end_with(End::Answer, None);
        }
    }

    fn end_at_eof(&mut self, requests: usize) {
        if let Some(response) = self.reader.at_eof() {
            self.push(response, requests);
        }
        self.end_with(End::Eof, None);
    }

    /// Ends the exchange; the first end counts.
    fn end_with(&mut self, end: End, error: Option<io::Error>) {
        if self.end.is_none() {
            self.end = Some(end);
            self.ended = Instant::now();
            self.error = error;
        }
    }
}

/// Spreads thirty pauses over the reading of a body.
struct Pacer {
    pace: Pace,
    since_pause: u64,
    pauses_left: u32,
}

impl Pacer {
    const PAUSES: u32 = 30;
    const PAUSE: Duration = Duration::from_millis(35);
    /// Assumed where the head announces no length.
    const STRIDE: u64 = 512 * 1024;

    fn new(pace: Pace) -> Self {
        Self {
            pace,
            since_pause: 0,
            pauses_left: Self::PAUSES,
        }
    }

    async fn read(&mut self, read: usize, length: Option<u64>) {
        self.since_pause += read as u64;
        let stride = length.map_or(Self::STRIDE, |length| length / u64::from(Self::PAUSES));
        if self.pace == Pace::Slow && self.pauses_left > 0 && self.since_pause >= stride {
            self.since_pause = 0;
            self.pauses_left -= 1;
            sleep(Self::PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Declined, Outcome, judge};
    use sundown_testkit::Step::*;
    use sundown_testkit::{Gate, Scripted, Step};

    const LIMIT: Duration = Duration::from_secs(10);

    /// Lets the server's end of an idle connection pass between the look and the write.
    async fn cross(end: impl Into<Vec<Step>>) -> Evidence {
        let looked = Gate::new();
        let mut script = vec![ReadHead, Answer, Wait(looked.clone())];
        script.extend(end.into());
        let server = Scripted::always(script);
        let letter = Letter::new(&[Request::get("/fast")], server.addr());
        let mut connection = Connection::open(server.addr(), Window::Usual, LIMIT)
            .await
            .unwrap();
        connection.exchange(&letter, LIMIT).await;

        let mut exchange = Exchange::new(&mut connection, &letter);
        looked.open();
        connection.closed_by_peer().await;
        connection.write(&letter, &mut exchange).await;
        connection
            .read(&letter, &mut exchange, Instant::now() + LIMIT)
            .await;
        exchange.evidence(0)
    }

    #[tokio::test]
    async fn a_request_that_crosses_a_close_is_declined() {
        let evidence = cross([Close]).await;
        assert_eq!(
            judge(&evidence),
            Outcome::Declined(Declined::Crossed),
            "{evidence:?}"
        );
    }

    #[tokio::test]
    async fn a_request_that_crosses_a_lingering_close_is_declined() {
        let evidence = cross([Fin, ReadHead, Hold]).await;
        assert_eq!(
            judge(&evidence),
            Outcome::Declined(Declined::Crossed),
            "{evidence:?}"
        );
    }

    #[tokio::test]
    async fn close_notify_ends_an_idle_connection_long_before_fin() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![made.cert.into()], key);
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config.unwrap()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (said, notified) = tokio::sync::oneshot::channel();
        let serving = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            stream.read_exact(&mut [0; 16]).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            let (socket, tls) = stream.get_mut();
            tls.send_close_notify();
            let mut flight = Vec::new();
            tls.write_tls(&mut flight).unwrap();
            socket.write_all(&flight).await.unwrap();
            said.send(()).unwrap();
            // No FIN until the client's.
            while socket.read(&mut [0; 1024]).await.unwrap_or(0) > 0 {}
        });
        let endpoint = Endpoint { address, tls: true };
        let letter = Letter::new(&[Request::get("/fast")], endpoint);
        let opened = Connection::open(endpoint, Window::Usual, LIMIT).await;
        let mut connection = opened.unwrap();
        let first = connection.exchange(&letter, LIMIT).await;
        assert_eq!(judge(&first.evidence(0)), Outcome::Answered { status: 200 });

        notified.await.unwrap();
        let second = connection.exchange(&letter, LIMIT).await;
        assert_eq!(
            judge(&second.evidence(0)),
            Outcome::Declined(Declined::IdleClosed)
        );
        assert_eq!(connection.farewell(), Some(Farewell::Announced));
        drop(connection);
        serving.await.unwrap();
    }
}
