//! What clients get while the service is serving.

mod trial;

use trial::{Trial, get};

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let trial = Trial::start().await;
    let mut client = trial.connect().await;
    client.send(&(get("/") + &get("/left") + &get("/"))).await;
    for expected in ["ok", "for ever", "ok"] {
        assert_eq!(client.answer().await.1, expected);
    }
}

#[tokio::test]
async fn a_handlers_panic_becomes_500_and_the_connection_lives_on() {
    let trial = Trial::start().await;
    let mut client = trial.ask("/panic").await;
    assert!(client.answer().await.0.starts_with("http/1.1 500"));
    client.send(&get("/")).await;
    assert_eq!(client.answer().await.1, "ok");
}

#[tokio::test]
async fn a_deadline_comes_in_by_the_documented_header() {
    let trial = Trial::start().await;
    let mut client = trial.connect().await;
    client
        .send("GET /left HTTP/1.1\r\nhost: trial\r\nx-request-timeout-ms: 90000\r\n\r\n")
        .await;
    let left: u64 = client
        .answer()
        .await
        .1
        .trim_end_matches(" ms")
        .parse()
        .unwrap();
    assert!((30_000..=90_000).contains(&left), "{left}");

    client
        .send("GET /patient HTTP/1.1\r\nhost: trial\r\nx-request-timeout-ms: 1\r\n\r\n")
        .await;
    assert!(client.answer().await.1.contains("deadline"));
}

#[tokio::test]
async fn connect_info_is_the_clients_address() {
    let trial = Trial::start().await;
    let mut client = trial.ask("/peer").await;
    assert_eq!(
        client.answer().await.1,
        client.stream.local_addr().unwrap().to_string()
    );
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_the_answer_survives_the_unread_rest() {
    let trial = Trial::start().await;
    let mut client = trial.connect().await;
    let body = "x".repeat(3 << 20);
    let head = format!(
        "POST /upload HTTP/1.1\r\nhost: trial\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.send(&head).await;
    let (mut reader, mut writer) = client.stream.split();
    let upload = tokio::io::AsyncWriteExt::write_all(&mut writer, body.as_bytes());
    let mut answer = Vec::new();
    let download = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut answer);
    let (_, read) = tokio::join!(upload, download);
    assert!(read.is_ok(), "{read:?}");
    assert!(
        answer.starts_with(b"HTTP/1.1 413"),
        "{}",
        String::from_utf8_lossy(&answer)
    );

    // Without a declared length the limit is found while reading.
    let mut client = trial.connect().await;
    client
        .send("POST /upload HTTP/1.1\r\nhost: trial\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    client
        .send(&format!(
            "{:x}\r\n{}\r\n0\r\n\r\n",
            2 << 20,
            "x".repeat(2 << 20)
        ))
        .await;
    assert!(client.answer().await.0.starts_with("http/1.1 413"));
}

#[tokio::test]
async fn half_a_head_gets_408_in_its_time() {
    let trial = Trial::start().await;
    let mut client = trial.connect().await;
    client.send("GET / HTTP/1.1\r\nho").await;
    assert!(client.answer().await.0.starts_with("http/1.1 408"));
    assert_eq!(client.rest().await, Ok(String::new()));
}
