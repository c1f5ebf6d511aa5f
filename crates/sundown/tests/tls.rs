//! TLS over a stop and over a renewal of certificates, with rustls on both sides.

mod trial;

use std::path::Path;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use sundown::{Admin, App, Connection, Context, ExitStatus, Handle, Listener, Phase, Report, Tls};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};
use trial::{LIMIT, Trial, get, run, spawn};

type Certified = CertifiedKey<rcgen::KeyPair>;

fn certify() -> Certified {
    generate_simple_self_signed(["trial".to_owned()]).unwrap()
}

fn write(folder: &Path, certified: &Certified) {
    std::fs::write(
        folder.join("key.pem"),
        certified.signing_key.serialize_pem(),
    )
    .unwrap();
    std::fs::write(folder.join("cert.pem"), certified.cert.pem()).unwrap();
}

/// A trial under TLS.
struct Served {
    trial: Trial,
    folder: TempDir,
    certified: Certified,
}

impl Served {
    async fn start() -> Self {
        Self::of("tls", |_| {}).await
    }

    async fn of(mode: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = TempDir::new().unwrap();
        let certified = certify();
        write(folder.path(), &certified);
        prepare(folder.path());
        let trial = Trial::of(spawn(mode).env("TRIAL_FOLDER", folder.path())).await;
        Self {
            trial,
            folder,
            certified,
        }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        self.connect_as(config(&self.certified, None))
            .await
            .unwrap()
    }

    async fn connect_as(&self, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.trial.address).await?;
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name(), stream).await
    }
}

fn name() -> ServerName<'static> {
    ServerName::try_from("trial").unwrap()
}

fn config(trusted: &Certified, own: Option<&Certified>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.cert.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(
        tokio_rustls::rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots);
    match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
            let chain = vec![own.cert.der().clone()];
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

async fn ask(stream: &mut TlsStream<TcpStream>, path: &str) -> String {
    stream.write_all(get(path).as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    let end = |seen: &[u8]| {
        let text = String::from_utf8_lossy(seen).to_lowercase();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head.split("content-length: ").nth(1)?;
        let length: usize = length.split("\r\n").next()?.parse().ok()?;
        (body.len() == length).then_some(text.clone())
    };
    loop {
        if let Some(answer) = end(&seen) {
            return answer;
        }
        let count = stream.read_buf(&mut seen).await.unwrap();
        assert!(count > 0, "ended in the middle of an answer");
    }
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

#[tokio::test]
async fn an_idle_connection_ends_with_close_notify() {
    let mut served = Served::start().await;
    let mut idle = served.connect().await;
    let mut busy = served.connect().await;
    assert!(ask(&mut idle, "/").await.ends_with("ok"));
    busy.write_all(get("/slow?ms=300").as_bytes())
        .await
        .unwrap();
    served.trial.says("slow began").await;

    served.trial.signal(libc::SIGTERM);
    let mut rest = String::new();
    // Without close_notify rustls calls the end unexpected.
    busy.read_to_string(&mut rest).await.unwrap();
    assert!(rest.to_lowercase().contains("connection: close"), "{rest}");
    assert!(rest.ends_with("ok"), "{rest}");
    assert_eq!(idle.read(&mut [0; 8]).await.unwrap(), 0);
    let (status, said) = served.trial.exit().await;
    assert_eq!(status, 0, "{said}");
}

#[tokio::test]
async fn http2_is_offered_and_told_to_go_away() {
    let mut served = Served::start().await;
    let mut config = config(&served.certified, None);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = served.connect_as(config).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("https://trial/").body(()).unwrap();
    let (answer, _) = send.send_request(request, true).unwrap();
    let _: &h2::client::SendRequest<bytes::Bytes> = &send;
    assert_eq!(answer.await.unwrap().status(), 200);

    served.trial.signal(libc::SIGTERM);
    drop(send);
    connection.await.unwrap().unwrap();
    assert_eq!(served.trial.exit().await.0, 0);
}

#[tokio::test]
async fn a_handshake_under_way_at_the_signal_is_finished_and_its_request_answered() {
    let mut served = Served::start().await;
    let mut stream = TcpStream::connect(served.trial.address).await.unwrap();
    let config = Arc::new(config(&served.certified, None));
    let mut session = ClientConnection::new(config, name()).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    let (first, rest) = hello.split_at(40);
    stream.write_all(first).await.unwrap();
    // An answer on another connection shows that these bytes have been looked at, too.
    ask(&mut served.connect().await, "/").await;

    served.trial.signal(libc::SIGTERM);
    served.trial.says("SIGTERM: stopping").await;
    stream.write_all(rest).await.unwrap();
    let mut seen = Vec::new();
    while session.is_handshaking() {
        while session.wants_write() {
            let mut bytes = Vec::new();
            session.write_tls(&mut bytes).unwrap();
            stream.write_all(&bytes).await.unwrap();
        }
        if session.is_handshaking() {
            assert!(stream.read_buf(&mut seen).await.unwrap() > 0, "cut off");
            let mut bytes = &seen[..];
            session.read_tls(&mut bytes).unwrap();
            let taken = seen.len() - bytes.len();
            seen.drain(..taken);
            session.process_new_packets().unwrap();
        }
    }
    use std::io::{Read as _, Write as _};
    session.writer().write_all(get("/").as_bytes()).unwrap();
    while session.wants_write() {
        let mut bytes = Vec::new();
        session.write_tls(&mut bytes).unwrap();
        stream.write_all(&bytes).await.unwrap();
    }
    stream.read_to_end(&mut seen).await.unwrap();
    let mut bytes = &seen[..];
    while !bytes.is_empty() {
        session.read_tls(&mut bytes).unwrap();
        session.process_new_packets().unwrap();
    }
    let mut answer = String::new();
    session.reader().read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("ok"), "{answer}");
    assert_eq!(served.trial.exit().await.0, 0);
}

#[tokio::test]
async fn certificates_are_renewed_on_a_hangup_while_a_connection_stays() {
    certificates_are_renewed(true).await;
}

#[tokio::test]
async fn certificates_are_renewed_when_their_files_change() {
    certificates_are_renewed(false).await;
}

async fn certificates_are_renewed(by_hangup: bool) {
    let mut served = Served::start().await;
    let mut before = served.connect().await;
    let renewed = certify();
    write(served.folder.path(), &renewed);
    if by_hangup {
        served.trial.signal(libc::SIGHUP);
        served.trial.says("nothing stops").await;
    }
    let after = tokio::time::timeout(LIMIT, async {
        loop {
            // Until the files are read, what it shows is not trusted.
            if let Ok(after) = served.connect_as(config(&renewed, None)).await {
                break after;
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(shown(&after), *renewed.cert.der());
    assert_eq!(shown(&before), *served.certified.cert.der());
    assert!(ask(&mut before, "/").await.ends_with("ok"));
    drop((before, after));
    assert_eq!(served.trial.stop().await.0, 0);
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_those_before_in_use() {
    let mut served = Served::start().await;
    std::fs::write(served.folder.path().join("cert.pem"), "nothing").unwrap();
    served.trial.signal(libc::SIGHUP);
    served.trial.says("nothing stops").await;
    let mut still = served.connect().await;
    assert!(ask(&mut still, "/").await.ends_with("ok"));
    drop(still);
    assert_eq!(served.trial.stop().await.0, 0);
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate_and_not_let_in_without() {
    let own = certify();
    let clients = own.cert.pem();
    let served = Served::of("tls-clients", |folder| {
        std::fs::write(folder.join("clients.pem"), clients).unwrap();
    })
    .await;
    let mut known = served
        .connect_as(config(&served.certified, Some(&own)))
        .await
        .unwrap();
    let answer = ask(&mut known, "/client").await;
    assert!(answer.ends_with(&format!("{} bytes", own.cert.der().len())));

    // In TLS 1.3 a client learns of it only when it reads.
    let unknown = served.connect_as(config(&served.certified, None)).await;
    if let Ok(mut unknown) = unknown {
        let _ = unknown.write_all(get("/").as_bytes()).await;
        assert!(unknown.read(&mut [0; 8]).await.is_err());
    }
    drop(known);
    assert_eq!(served.trial.stop().await.0, 0);
}

#[tokio::test]
async fn a_client_may_show_a_certificate_where_none_is_required() {
    let own = certify();
    let clients = own.cert.pem();
    let served = Served::of("tls-anybody", |folder| {
        std::fs::write(folder.join("clients.pem"), clients).unwrap();
    })
    .await;
    let known = config(&served.certified, Some(&own));
    let mut known = served.connect_as(known).await.unwrap();
    let answer = ask(&mut known, "/client").await;
    assert!(answer.ends_with(&format!("{} bytes", own.cert.der().len())));
    let mut unknown = served.connect().await;
    assert!(ask(&mut unknown, "/").await.ends_with("ok"));
    // Whose certificate nobody vouches for is not let in all the same.
    let stranger = config(&served.certified, Some(&certify()));
    if let Ok(mut stranger) = served.connect_as(stranger).await {
        let _ = stranger.write_all(get("/").as_bytes()).await;
        assert!(stranger.read(&mut [0; 8]).await.is_err());
    }
    drop((known, unknown));
    assert_eq!(served.trial.stop().await.0, 0);
}

#[tokio::test]
async fn a_proxys_header_comes_before_the_handshake() {
    let served = Served::of("tls-proxied", |_| {}).await;
    let mut stream = TcpStream::connect(served.trial.address).await.unwrap();
    let header = b"PROXY TCP4 192.0.2.7 192.0.2.8 4000 443\r\n";
    stream.write_all(header).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config(&served.certified, None)));
    let mut client = connector.connect(name(), stream).await.unwrap();
    assert!(ask(&mut client, "/peer").await.ends_with("192.0.2.7:4000"));
    drop(client);
    assert_eq!(served.trial.stop().await.0, 0);
}

#[tokio::test]
async fn a_handshake_that_stalls_holds_nothing_up() {
    let mut served = Served::start().await;
    let mut stalled = TcpStream::connect(served.trial.address).await.unwrap();
    stalled.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
    served.trial.signal(libc::SIGTERM);
    let _ = stalled.read(&mut [0; 8]).await;
    let (status, said) = served.trial.exit().await;
    assert_eq!(status, 0, "{said}");
}

#[tokio::test]
async fn a_missing_file_is_a_wrong_setting_and_is_named() {
    let folder = TempDir::new().unwrap();
    let (status, said) = run(spawn("tls").env("TRIAL_FOLDER", folder.path())).await;
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("listener http: cannot read"), "{said}");
    assert!(said.contains("cert.pem"), "{said}");
}

#[tokio::test]
async fn a_hangup_stops_nothing() {
    let mut trial = Trial::start().await;
    trial.signal(libc::SIGHUP);
    trial.says("nothing stops").await;
    assert_eq!(trial.ask("/").await.answer().await.1, "ok");
    assert_eq!(trial.stop().await.0, 0);
}

#[tokio::test]
async fn authorities_beside_a_configuration_of_ones_own_are_no_silent_wish() {
    use tokio_rustls::rustls::ServerConfig;
    let own = certify();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let tls = sundown::Tls::config(Arc::new(config)).require_clients("clients.pem");
    let listener = sundown::Listener::http("127.0.0.1:0", axum::Router::new()).tls(tls);
    let report = sundown::App::new("own")
        .listener(listener)
        .serve()
        .await
        .unwrap();
    assert_eq!(report.exit_code, 2, "{report}");
}

/// A service within this test, for what the trial does not offer.
struct Embedded {
    handle: Handle,
    running: JoinHandle<Report>,
    certified: Certified,
    _folder: TempDir,
}

impl Embedded {
    async fn start(app: impl FnOnce(Tls) -> App) -> Self {
        let folder = TempDir::new().unwrap();
        let certified = certify();
        write(folder.path(), &certified);
        let file = |name| folder.path().join(name);
        let app = app(Tls::files(file("cert.pem"), file("key.pem")));
        let handle = app.handle();
        let running = tokio::spawn(async move { app.serve().await.unwrap() });
        assert_eq!(handle.ready().await, Phase::Ready);
        Self {
            handle,
            running,
            certified,
            _folder: folder,
        }
    }

    async fn connect(&self, listener: &str) -> TlsStream<TcpStream> {
        let address = self.handle.address(listener).unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config(&self.certified, None)));
        connector.connect(name(), stream).await.unwrap()
    }

    async fn stop(self) -> Report {
        self.handle.shutdown("the test");
        self.running.await.unwrap()
    }
}

#[tokio::test]
async fn a_raw_connection_under_tls_is_told_and_ends_with_close_notify() {
    let echo = |mut connection: Connection, ctx: Context| async move {
        let mut bytes = [0; 5];
        connection.read_exact(&mut bytes).await?;
        connection.write_all(&bytes).await?;
        ctx.draining().await;
        connection.write_all(b"bye").await?;
        Ok(connection.shutdown().await?)
    };
    let listener = |tls| Listener::tcp("127.0.0.1:0", echo).tls(tls);
    let served = Embedded::start(|tls| App::new("raw").listener(listener(tls))).await;
    let mut client = served.connect("tcp").await;
    client.write_all(b"hello").await.unwrap();
    let mut seen = [0; 5];
    client.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"hello");

    let reading = tokio::spawn(async move {
        let mut rest = String::new();
        // Without close_notify rustls calls the end unexpected.
        client.read_to_string(&mut rest).await.unwrap();
        rest
    });
    let report = served.stop().await;
    assert_eq!(reading.await.unwrap(), "bye");
    assert_eq!(report.exit_status(), ExitStatus::Drained, "{report}");
}

#[tokio::test]
async fn an_admin_listener_under_tls_wants_the_token_that_the_code_names() {
    let admin = |tls| Admin::at("127.0.0.1:0").token("0123456789abcdef").tls(tls);
    let served = Embedded::start(|tls| {
        let idle = App::new("idle").http("127.0.0.1:0", axum::Router::new());
        idle.admin(admin(tls))
    })
    .await;
    for (header, expected) in [
        ("", "http/1.1 401"),
        ("authorization: bearer 0123456789abcdeX\r\n", "http/1.1 401"),
        ("authorization: bearer 0123456789abcdef\r\n", "http/1.1 200"),
    ] {
        let mut client = served.connect("admin").await;
        let request = format!("GET /lifecycle HTTP/1.1\r\nhost: trial\r\n{header}\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut seen = [0; 12];
        client.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen.to_ascii_lowercase(), expected.as_bytes(), "{header}");
    }
    assert_eq!(served.stop().await.exit_status(), ExitStatus::Drained);
}
