//! A browser of its own for each test, and what a test does with a page.

use std::env;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Map, Value, json};
use sundown_verify::Process;
use sundown_verify::process::Spawn;
use tempfile::TempDir;

/// How long a driver, or a page, may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a page is looked at.
const STEP: Duration = Duration::from_millis(20);

/// Nothing that a browser does beside showing a page, and nothing that a container forbids.
const FLAGS: [&str; 10] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-device-scale-factor=1",
];

/// Looks at pages by a browser of its own, which is closed also after a panic.
pub(super) async fn look<F>(folder: &Path, look: impl FnOnce(Page) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let browser = Browser::start(folder).await;
    let looked = tokio::spawn(look(Page(browser.client.clone()))).await;
    browser.client.close().await.unwrap();
    looked.unwrap();
}

/// A folder for the browser, and for what it looks at.
pub(super) fn folder() -> TempDir {
    let folder = tempfile::Builder::new();
    folder.tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A page that is open.
pub(super) struct Page(pub(super) Client);

impl Page {
    pub(super) async fn js(&self, script: &str) -> Value {
        self.0.execute(script, Vec::new()).await.unwrap()
    }

    pub(super) async fn find(&self, selector: &str) -> Element {
        self.0.find(Locator::Css(selector)).await.unwrap()
    }

    pub(super) async fn all(&self, selector: &str) -> Vec<Element> {
        self.0.find_all(Locator::Css(selector)).await.unwrap()
    }

    pub(super) async fn text(&self, selector: &str) -> String {
        self.find(selector).await.text().await.unwrap()
    }

    pub(super) async fn click(&self, selector: &str) {
        self.find(selector).await.click().await.unwrap();
    }

    /// Waits until an element says this.
    pub(super) async fn says(&self, selector: &str, words: &str) {
        let said = async {
            while !self.text(selector).await.contains(words) {
                tokio::time::sleep(STEP).await; // tidy: a page tells nobody of a change
            }
        };
        let waited = tokio::time::timeout(PATIENCE, said).await;
        assert!(waited.is_ok(), "{selector} never says {words:?}");
    }

    pub(super) async fn choose(&self, selector: &str, value: &str) {
        let list = self.find(selector).await;
        list.select_by_value(value).await.unwrap();
    }
}

/// A browser, and its driver, which ends when it is dropped.
struct Browser {
    client: Client,
    _driver: Process,
}

impl Browser {
    async fn start(folder: &Path) -> Self {
        let program = |name: &str| env::var(name).expect("cargo xtask browser says where it is");
        let driver = Spawn::new(program("SUNDOWN_TEST_CHROMEDRIVER")).arg("--port=0");
        let mut driver = driver.own_group().start().unwrap();
        let port = driver.wait_line("successfully on port ", PATIENCE).await;
        let address = format!("http://127.0.0.1:{}", port.unwrap().trim_end_matches('.'));
        let profile = format!("--user-data-dir={}", folder.join("profile").display());
        let flags: Vec<&str> = FLAGS.into_iter().chain([profile.as_str()]).collect();
        let mut capabilities = Map::new();
        let options = json!({ "binary": program("SUNDOWN_TEST_CHROMIUM"), "args": flags });
        capabilities.insert("goog:chromeOptions".to_owned(), options);
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&address)
            .await;
        Self {
            client: client.unwrap(),
            _driver: driver,
        }
    }
}
