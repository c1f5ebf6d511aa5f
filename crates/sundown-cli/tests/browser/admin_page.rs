//! The page of a service's admin listener, during a stop.

use std::fs;
use std::time::Duration;

use sundown_testkit::bin_path;
use sundown_verify::process::{Ended, Spawn};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::driver::{Page, folder, look};

const LIMIT: Duration = Duration::from_secs(60);

const TOKEN: &str = "0123456789abcdef";

#[tokio::test]
#[ignore = "needs a browser: cargo xtask browser"]
async fn it_shows_a_stop_as_it_happens() {
    let folder = folder();
    // The request, and the release, wait until theirs is gone.
    let [request_gate, release_gate] = ["held", "store"].map(|name| folder.path().join(name));
    fs::write(&request_gate, "").unwrap();
    fs::write(&release_gate, "").unwrap();
    let mut service = Spawn::new(bin_path("examples/trial"))
        .arg("releases-slowly")
        .env("TRIAL_FOLDER", folder.path())
        .env("SUNDOWN_ADMIN", ":0")
        .env("SUNDOWN_ADMIN_TOKEN", TOKEN)
        .start()
        .unwrap();
    let admin = service.wait_line("admin on ", LIMIT).await.unwrap();
    let address = service.wait_line("http on ", LIMIT).await.unwrap();
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = "GET /held HTTP/1.1\r\nhost: trial\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let peer = client.local_addr().unwrap().to_string();
    look(folder.path(), async move |page| {
        page.0.goto(&format!("http://{admin}/")).await.unwrap();
        give_the_token(&page).await;
        page.says("#phase", "ready").await;
        page.says("#open", "GET /held").await;
        page.says("#open", &peer).await;
        assert_eq!(page.text("#in-flight").await, "1");

        page.click("#stop").await;
        page.0.accept_alert().await.unwrap();
        page.says("#phase", "draining").await;
        page.says("#note", "POST /shutdown: from the page").await;
        page.find("#timeline [data-phase=draining]").await;
        fs::remove_file(&request_gate).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("ok"), "{answer}");

        page.says("#phase", "releasing").await;
        page.says("#hooks", "store").await;
        assert_eq!(page.text("#finished").await, "1");
        fs::remove_file(&release_gate).unwrap();
        page.says("#phase", "stopped").await;
        page.says("#hooks", "done").await;
    })
    .await;
    let exit = service.wait_exit(LIMIT).await.unwrap();
    assert_eq!(exit.ended, Ended::Code(0));
}

async fn give_the_token(page: &Page) {
    page.says("#ask", "This listener wants its token").await;
    page.find("#token").await.send_keys(TOKEN).await.unwrap();
    page.click("#ask button").await;
}
