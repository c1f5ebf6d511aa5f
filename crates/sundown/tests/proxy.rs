//! Connections that come through a proxy, which says whose they are.

mod trial;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use trial::{Trial, get, spawn};

const TCP4: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8, 0x04, 0x57, 0, 80];

fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    [&signature[..], &[command, family], &length, rest].concat()
}

#[tokio::test]
async fn the_client_is_who_the_proxy_says() {
    let trial = Trial::of(spawn("proxied")).await;
    let headers = [
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\r\n".to_vec(),
        version_2(0x21, 0x11, TCP4),
    ];
    for header in headers {
        let mut client = trial.connect().await;
        client.stream.write_all(&header).await.unwrap();
        // The next byte after the header is the request's, and so for every request.
        for _ in 0..2 {
            client.send(&get("/peer")).await;
            assert_eq!(client.answer().await.1, "1.2.3.4:1111");
        }
    }
    assert_eq!(trial.stop().await.0, 0);
}

#[tokio::test]
async fn a_header_in_pieces_is_one_header() {
    let trial = Trial::of(spawn("proxied")).await;
    let mut client = trial.connect().await;
    client.stream.set_nodelay(true).unwrap();
    let bytes = [version_2(0x21, 0x11, TCP4), get("/peer").into_bytes()].concat();
    for piece in bytes.chunks(5) {
        client.stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(client.answer().await.1, "1.2.3.4:1111");
    drop(client);
    assert_eq!(trial.stop().await.0, 0);
}

#[tokio::test]
async fn a_proxy_that_speaks_for_itself_is_the_client() {
    let trial = Trial::of(spawn("proxied")).await;
    let mut client = trial.connect().await;
    client
        .stream
        .write_all(&version_2(0x20, 0, &[]))
        .await
        .unwrap();
    client.send(&get("/peer")).await;
    let own = client.stream.local_addr().unwrap().to_string();
    assert_eq!(client.answer().await.1, own);
    drop(client);
    assert_eq!(trial.stop().await.0, 0);
}

#[tokio::test]
async fn without_a_header_nothing_is_answered() {
    let trial = Trial::of(spawn("proxied")).await;
    let mut client = trial.ask("/").await;
    let mut seen = Vec::new();
    let _ = client.stream.read_to_end(&mut seen).await;
    assert_eq!(seen, b"");
    assert_eq!(trial.stop().await.0, 0);
}
