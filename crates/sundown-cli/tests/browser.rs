//! The page that `sundown verify --html` writes, opened in a real browser.
//!
//! Needs Chromium and its driver: `cargo xtask browser` finds them and runs this.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use fantoccini::actions::{InputSource, MOUSE_BUTTON_LEFT, MouseActions, PointerAction};
use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Map, Value, json};
use sundown_testkit::bin_path;
use sundown_verify::Process;
use sundown_verify::process::Spawn;

/// The stop that most checks share, and the one of the check that freezes the server.
const SHARED: usize = 0;
const HELD: usize = 1;

/// How long the driver may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

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

#[tokio::test]
#[ignore = "needs a browser, by SUNDOWN_TEST_CHROMIUM and SUNDOWN_TEST_CHROMEDRIVER: cargo xtask browser"]
async fn the_page_shows_in_a_browser_what_the_run_found() {
    let folder = Folder::new();
    let run = Run::on_planted("impatient", folder.path());
    let browser = Browser::start(folder.path()).await;
    let page = Page(browser.client.clone());
    // In a task of its own: the browser is closed also after a panic.
    let looked = tokio::spawn(async move { look_at(&page, &run).await }).await;
    browser.close().await;
    looked.unwrap();
}

async fn look_at(page: &Page, run: &Run) {
    page.0.set_window_size(1200, 2400).await.unwrap();
    page.0.goto(&run.page).await.unwrap();
    the_table_tells_the_verdicts_of_the_json(page, run).await;
    each_request_of_a_stop_has_its_bar(page, run).await;
    classes_and_checks_can_be_hidden(page, run).await;
    signal_listener_and_exit_are_marked(page).await;
    the_axis_can_be_zoomed_by_buttons_keys_wheel_and_drag(page).await;
    a_request_tells_about_itself(page).await;
    let errors = page
        .js("return document.documentElement.dataset.errors")
        .await;
    assert_eq!(errors, "0", "nothing failed in the page");
}

async fn the_table_tells_the_verdicts_of_the_json(page: &Page, run: &Run) {
    let told = page.js("return Object.fromEntries([...document.querySelectorAll('[data-check]')].map(row => [row.dataset.check, row.querySelector('.verdict').innerText.toLowerCase()]))").await;
    let told: BTreeMap<String, String> = serde_json::from_value(told).unwrap();
    let checks = run.document["checks"].as_array().unwrap();
    let of_json = checks
        .iter()
        .map(|check| (text(&check["id"]), text(&check["verdict"])));
    assert_eq!(told, of_json.collect());
    let whole = page.text("#verdict").await.to_lowercase();
    assert_eq!(whole, text(&run.document["verdict"]));
    // Where this machine is busy there may be none.
    let causes = checks.iter().map(|check| &check["cause"]);
    let causes = causes.filter(|cause| cause.is_string());
    let words = [&run.document["checks"][1]["advice"], &json!("evidence")];
    for words in words.into_iter().chain(causes) {
        let table = page.text("#checks").await;
        assert!(table.contains(&text(words)), "{words} in {table}");
    }
}

async fn each_request_of_a_stop_has_its_bar(page: &Page, run: &Run) {
    for stop in [HELD, SHARED] {
        page.choose("#stop", &stop.to_string()).await;
        page.click("#whole").await;
        assert_eq!(page.drawn().await, run.bars(stop).len());
        page.each_bar_has_the_colour_of_its_class().await;
    }
}

async fn classes_and_checks_can_be_hidden(page: &Page, run: &Run) {
    let bars = run.bars(SHARED);
    let of = |class: &str| bars.iter().filter(|bar| bar["class"] == class).count();
    let lost = of("lost");
    assert!(
        lost > 0 && of("answered") > 0,
        "there is something to tell apart"
    );
    let toggle = async |class: &str| page.click(&format!("#classes [value={class}]")).await;
    toggle("lost").await;
    assert_eq!(page.drawn().await, bars.len() - lost);
    page.each_bar_has_the_colour_of_its_class().await;
    toggle("lost").await;
    toggle("answered").await;
    toggle("declined").await;
    toggle("local-error").await;
    assert_eq!(page.drawn().await, lost);
    for class in ["answered", "declined", "local-error"] {
        toggle(class).await;
    }
    assert_eq!(page.drawn().await, bars.len());

    page.choose("#check", "signal/2").await;
    assert_eq!(page.drawn().await, 0, "it makes no request");
    page.choose("#check", "http1/8").await;
    assert_eq!(page.drawn().await, 24, "three from each of eight clients");
    page.choose("#check", "").await;
    assert_eq!(page.drawn().await, bars.len());
}

async fn signal_listener_and_exit_are_marked(page: &Page) {
    let marks = page.all(".mark").await;
    let mut told = Vec::new();
    for mark in &marks {
        assert!(mark.is_displayed().await.unwrap());
        told.push(mark.text().await.unwrap());
    }
    let expected = ["signal, 0 ms", "listener closed, ", "exit code 0, "];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told}");
    }
}

async fn the_axis_can_be_zoomed_by_buttons_keys_wheel_and_drag(page: &Page) {
    let whole = page.axis().await;
    let span = async || {
        page.js("return view.to - view.from")
            .await
            .as_f64()
            .unwrap()
    };
    let full = span().await;
    let reset = async || {
        page.click("#whole").await;
        assert_eq!(page.axis().await, whole);
    };

    page.click("#closer").await;
    assert_ne!(page.axis().await, whole);
    assert!((span().await / full - 0.5).abs() < 0.01);
    reset().await;

    page.find("#scroll").await.send_keys("+").await.unwrap();
    assert_ne!(page.axis().await, whole);
    page.find("#scroll").await.send_keys("0").await.unwrap();
    assert_eq!(page.axis().await, whole);

    let canvas = page.find("#lanes").await;
    let drag = MouseActions::new("mouse".to_owned())
        .then(to(&canvas, -50.0))
        .then(PointerAction::Down {
            button: MOUSE_BUTTON_LEFT,
        })
        .then(to(&canvas, 150.0))
        .then(PointerAction::Up {
            button: MOUSE_BUTTON_LEFT,
        });
    page.0.perform_actions(drag).await.unwrap();
    let expected = page.js("return 200 / plotWidth()").await.as_f64().unwrap();
    let share = span().await / full;
    assert!(
        (share / expected - 1.0).abs() < 0.05,
        "{share} of the whole"
    );
    reset().await;

    page.js("byId('axis').dispatchEvent(new WheelEvent('wheel', { deltaY: -400, cancelable: true, clientX: 600 }))")
        .await;
    assert!(span().await < full);
    reset().await;
}

async fn a_request_tells_about_itself(page: &Page) {
    let (canvas, detail) = (page.find("#lanes").await, page.find("#detail").await);
    assert!(!detail.is_displayed().await.unwrap());
    let at = page.js("const row = rows.find((row) => row.bars); const bar = row.bars[0].bar; const box = canvas.getBoundingClientRect(); return [(xOf(bar.from) + xOf(bar.to)) / 2 - box.width / 2, row.top + 5 - box.height / 2, bar.request, laneName(row.lane)]").await;
    let hover = MouseActions::new("mouse".to_owned()).then(PointerAction::MoveToElement {
        element: canvas,
        duration: None,
        x: at[0].as_f64().unwrap(),
        y: at[1].as_f64().unwrap(),
    });
    page.0.perform_actions(hover).await.unwrap();
    let told = page.text("#detail").await;
    for words in [&at[2], &at[3]] {
        assert!(told.contains(&text(words)), "{words} in {told}");
    }

    let scroll = page.find("#scroll").await;
    scroll.send_keys("n").await.unwrap();
    let first = page.text("#detail").await;
    assert!(
        first.contains("lost: ") && first.contains("/slow"),
        "{first}"
    );
    scroll.send_keys("n").await.unwrap();
    assert_ne!(page.text("#detail").await, first, "the next one");
}

/// Moves the pointer this far from the middle of an element.
fn to(element: &Element, x: f64) -> PointerAction {
    PointerAction::MoveToElement {
        element: element.clone(),
        duration: None,
        x,
        y: 0.0,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// What one run wrote.
struct Run {
    /// The page's address.
    page: String,
    document: Value,
    timelines: Value,
}

impl Run {
    /// Plays checks on the server with this fault: three that share a stop, and one that has its own.
    fn on_planted(fault: &str, folder: &Path) -> Self {
        let (page, json) = (folder.join("run.html"), folder.join("run.json"));
        let planted = bin_path("examples/planted");
        let output = Command::new(cargo_bin!("sundown"))
            .args(["verify", "--fast", "/fast", "--slow", "/slow"])
            .args(["--only", "signal/2,http1/1,http1/8,http1/2"])
            .arg("--html")
            .arg(&page)
            .arg("--json")
            .arg(&json)
            .arg("--")
            .arg(planted)
            .args(["{port}", fault])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        let written = fs::read_to_string(&page).unwrap();
        let (_, data) = written.split_once(r#"id="data">"#).unwrap();
        let (data, _) = data.split_once("</script>").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        Self {
            page: format!("file://{}", page.display()),
            document: serde_json::from_slice(&fs::read(json).unwrap()).unwrap(),
            timelines: data["timelines"].clone(),
        }
    }

    /// The requests of a stop.
    fn bars(&self, stop: usize) -> Vec<Value> {
        let lanes = self.timelines[stop]["lanes"].as_array().unwrap();
        let bars = lanes
            .iter()
            .flat_map(|lane| lane["bars"].as_array().unwrap());
        bars.cloned().collect()
    }
}

/// A page that is open.
struct Page(Client);

impl Page {
    async fn js(&self, script: &str) -> Value {
        self.0.execute(script, Vec::new()).await.unwrap()
    }

    async fn find(&self, selector: &str) -> Element {
        self.0.find(Locator::Css(selector)).await.unwrap()
    }

    async fn all(&self, selector: &str) -> Vec<Element> {
        self.0.find_all(Locator::Css(selector)).await.unwrap()
    }

    async fn text(&self, selector: &str) -> String {
        self.find(selector).await.text().await.unwrap()
    }

    async fn click(&self, selector: &str) {
        self.find(selector).await.click().await.unwrap();
    }

    async fn choose(&self, selector: &str, value: &str) {
        let list = self.find(selector).await;
        list.select_by_value(value).await.unwrap();
    }

    /// How many bars are drawn; as the window is tall, these are all that the filters leave.
    async fn drawn(&self) -> usize {
        let counts = self
            .js("return [canvas.dataset.drawn, canvas.dataset.shown]")
            .await;
        assert_eq!(counts[0], counts[1], "what is shown is drawn");
        text(&counts[0]).parse().unwrap()
    }

    /// The names of the axis's ticks.
    async fn axis(&self) -> Value {
        self.js("return [...document.querySelectorAll('.tick')].map(tick => tick.innerText)")
            .await
    }

    /// Looks at the pixels: in the middle of each bar, or on the edge of one that is hollow.
    async fn each_bar_has_the_colour_of_its_class(&self) {
        let other = self.js(PIXELS).await;
        assert_eq!(other, json!([]));
    }
}

/// Returns the bars whose pixels have another colour than their class, but for those that others cover.
const PIXELS: &str = "
    const pen = canvas.getContext('2d');
    const style = getComputedStyle(document.documentElement);
    const other = [];
    for (const row of rows.filter((row) => row.bars)) {
        for (const { bar, row: at } of row.bars) {
            const near = (other) => other !== bar && Math.abs(xOf(other.from) - xOf(bar.from)) < 3;
            if (row.bars.some((one) => one.row === at && near(one.bar))) continue;
            const x = Math.floor((xOf(bar.from) + Math.max(xOf(bar.to), xOf(bar.from) + 2)) / 2);
            const middle = row.top - scroll.scrollTop + at * ROW + (CLASSES[bar.class].swatch === 'hollow' ? 2.5 : 5);
            const pixel = [...pen.getImageData(x, Math.floor(middle), 1, 1).data.slice(0, 3)];
            const colour = style.getPropertyValue('--' + bar.class).trim().slice(1);
            const expected = [0, 2, 4].map((digit) => parseInt(colour.slice(digit, digit + 2), 16));
            if (pixel.some((part, index) => Math.abs(part - expected[index]) > 60)) other.push([bar, pixel, expected]);
        }
    }
    return other;
";

/// A browser of its own, driven by a driver of its own.
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

    /// Ends the browser; the driver ends when it is dropped.
    async fn close(self) {
        self.client.close().await.unwrap();
    }
}

/// A folder that is gone when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("browser-{}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays is untidy, not wrong.
        let _ = fs::remove_dir_all(&self.0);
    }
}
